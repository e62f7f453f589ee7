"""What a status resource is; knows no resource by name and no spelling."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Status:
    """One status resource.

    Attributes
    ----------
    key : str
        The rest of the path after `status/`.
    value_type : str
        As in config.
    unit : str
        Empty where there is none; EIGER1 sends it all the same, unlike in config.
    critical_limits : tuple
        The values (lowest, highest) that are still good; None where there is no such limit.
    critical_values : tuple of str
        The values that are a fault.
    allowed : tuple of str
        Every value there is, where EIGER2 lists them.
    sensor : str
        Which quantity of `sim_dcu.sensors` it shows, empty where it is not measured.
    brief : bool
        Whether EIGER1's reply holds only value, type and time, as `error` does.
    stamped : bool
        Whether EIGER1's reply says when the value was taken; that of `time` does not.
    listed : bool
        Whether `keys` names it; it is served either way.
    """

    key: str
    value_type: str
    unit: str = ""
    critical_limits: tuple[float | None, float | None] = (None, None)
    critical_values: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    sensor: str = ""
    brief: bool = False
    stamped: bool = True
    listed: bool = True

    def is_critical(self, value: object) -> bool:
        """Return whether `value` is a fault."""
        low, high = self.critical_limits
        if isinstance(value, int | float):
            return (low is not None and value < low) or (high is not None and value > high)
        return value in self.critical_values
