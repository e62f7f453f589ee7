"""The SIMPLON resources as ophyd Components: attribute, key, kind and meaning, one line each.

No limits, no defaults, no choices: the detector says those itself. A `/` in a key becomes `_` in
the attribute; `command/trigger` is `soft_trigger`, because `trigger` is bluesky's verb. Resources
that a detector does not serve are left out of its readings.

Source: SIMPLON API Reference V1.3, section 3; for what later firmware adds, replies recorded from
EIGER detectors at API 1.6.
"""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from ophyd import Device, Kind

from ophyd_eiger.errors import NotServedError, RefusedError
from ophyd_eiger.signals import (
    EigerCommand,
    EigerSignal,
    Link,
    TriggerCommand,
    command,
    config,
    status,
)

logger = logging.getLogger(__name__)

# Megabytes each: read only when asked for.
ARRAYS = ("flatfield", "pixel_mask")
# An EIGER 500K answers 500 for the links that it does not have.
NOT_FITTED = 500


class Subsystem(Device):
    """One subsystem of the SIMPLON API; its signals are its resources."""

    subsystem = ""

    def __init__(self, prefix: str = "", *, parent: Any = None, **kwargs: Any) -> None:
        self.owner = parent
        self._undeclared: dict[str, EigerSignal] = {}
        super().__init__(prefix, parent=parent, **kwargs)

    @property
    def link(self) -> Link:
        """What the signals of the detector share."""
        return self.owner.link

    @property
    def signals(self) -> Iterator[EigerSignal]:
        """Every declared config and status resource."""
        for name in self.component_names:
            signal = getattr(self, name)
            if isinstance(signal, EigerSignal):
                yield signal

    def __getitem__(self, resource: str) -> EigerSignal | EigerCommand:
        """Return the signal of a resource by section and key, declared or not.

        Parameters
        ----------
        resource : str
            As in "config/count_time" or, for one that firmware newer than this package has,
            "config/new_key".
        """
        for name in self.component_names:
            signal = getattr(self, name)
            if signal.resource == resource:
                return signal
        if resource not in self._undeclared:
            name = f"{self.name}_{resource.partition('/')[2].replace('/', '_')}"
            self._undeclared[resource] = EigerSignal(resource, name=name, parent=self)
        return self._undeclared[resource]

    def refresh(self) -> None:
        """Ask the DCU for every declared value but the big arrays.

        What the DCU does not serve is marked so and left out of the readings.

        Raises
        ------
        DcuError
            If the DCU cannot be asked at all.
        """
        absent = [
            signal.resource
            for signal in self.signals
            if signal.key not in ARRAYS and not self._refresh_one(signal)
        ]
        if absent:
            logger.info("%s: not served by this DCU now: %s", self.name, ", ".join(absent))

    def undeclared(self) -> list[str]:
        """Ask the DCU which resources it lists that have no attribute here.

        Returns
        -------
        list of str
            As in "config/new_key": what `self[...]` takes.

        Raises
        ------
        DcuError
            If the DCU cannot be asked.
        """
        declared = {getattr(self, name).resource for name in self.component_names}
        listed = []
        for section in ("config", "status", "command"):
            keys = self.link.client.get(self.subsystem, f"{section}/keys")
            listed += [f"{section}/{key}" for key in keys if isinstance(key, str)]
        return [resource for resource in listed if resource not in declared]

    def read_again(self, keys: Iterable[str], signal: EigerSignal) -> None:
        """Ask again for the config values that a PUT's reply names, and for the one put."""
        signal.get()
        self.link.changed(self.subsystem, {*keys, signal.key})
        named = set(keys) - {signal.key, *ARRAYS}
        for other in self.signals:
            if other.section == "config" and other.key in named:
                self._refresh_one(other)

    def _refresh_one(self, signal: EigerSignal) -> bool:
        try:
            signal.get()
        except NotServedError:
            return False
        except RefusedError as error:
            if error.status != NOT_FITTED:
                raise
            signal.served = False
            return False
        return True

    def stage(self) -> list:
        """Do nothing: the detector stages itself as a whole."""
        return []

    unstage = stage


class Detector(Subsystem):
    """Configuration, state and commands of the detector (V1.3 section 3.1)."""

    subsystem = "detector"

    count_time = config("count_time", "Exposure time of an image [s]")
    frame_time = config("frame_time", "Time from the start of one image to the next [s]")
    nimages = config("nimages", "Images that one trigger takes")
    ntrigger = config("ntrigger", "Triggers of a series")
    trigger_mode = config("trigger_mode", "What starts an exposure: ints, inte, exts, exte")
    photon_energy = config("photon_energy", "Energy of the incident X-rays [eV]")
    wavelength = config("wavelength", "Wavelength of the incident X-rays [angstrom]")
    element = config("element", "Element whose K-alpha energy photon_energy is")
    threshold_energy = config("threshold_energy", "Energy above which a photon counts [eV]")
    beam_center_x = config("beam_center_x", "Beam position along x [pixel]")
    beam_center_y = config("beam_center_y", "Beam position along y [pixel]")
    detector_distance = config("detector_distance", "Distance from sample to detector [m]")
    detector_orientation = config("detector_orientation", "Unit vectors of the fast and slow axis")
    detector_translation = config("detector_translation", "Position of the detector's corner [m]")
    bit_depth_image = config("bit_depth_image", "Bits of a pixel in an image; final after arm")
    bit_depth_readout = config("bit_depth_readout", "Bits of a pixel in one read-out")
    auto_summation = config("auto_summation", "Whether short read-outs are summed to an image")
    compression = config("compression", "How images are compressed: lz4, bslz4")
    roi_mode = config("roi_mode", "Which part of the detector is read out")
    countrate_correction_applied = config(
        "countrate_correction_applied", "Whether lost counts at high rates are made up for"
    )
    countrate_correction_count_cutoff = config(
        "countrate_correction_count_cutoff", "Largest count after count-rate correction"
    )
    countrate_correction_bunch_mode = config(
        "countrate_correction_bunch_mode", "Bunch mode that count-rate correction assumes"
    )
    flatfield_correction_applied = config(
        "flatfield_correction_applied", "Whether images are multiplied with the flat field"
    )
    efficiency_correction_applied = config(
        "efficiency_correction_applied", "Whether the sensor's quantum efficiency is corrected"
    )
    virtual_pixel_correction_applied = config(
        "virtual_pixel_correction_applied", "Whether the seams between chips are interpolated"
    )
    pixel_mask_applied = config(
        "pixel_mask_applied", "Whether masked pixels hold the largest value in images"
    )
    number_of_excluded_pixels = config("number_of_excluded_pixels", "Pixels that are masked")
    flatfield = config(
        "flatfield", "Flat-field factors, float32 of shape (y, x)", kind=Kind.omitted
    )
    pixel_mask = config(
        "pixel_mask",
        "Bits a pixel: 0 gap, 1 dead, 2 under-, 3 over-responding, 4 noisy; uint32 (y, x)",
        kind=Kind.omitted,
    )
    frame_count_time = config("frame_count_time", "Exposure time of one read-out [s]")
    frame_period = config("frame_period", "Time from one read-out to the next [s]")
    nframes_sum = config("nframes_sum", "Read-outs that are summed to an image")
    detector_readout_time = config("detector_readout_time", "Dead time between read-outs [s]")
    detector_readout_period = config("detector_readout_period", "Shortest time of a read-out [s]")
    data_collection_date = config("data_collection_date", "When the detector was armed last")
    description = config("description", "Maker and model")
    detector_number = config("detector_number", "Serial number")
    software_version = config("software_version", "Software on the DCU")
    eiger_fw_version = config("eiger_fw_version", "Firmware of the detector")
    calibration_type = config("calibration_type", "Calibration in use")
    module_bandwidth = config("module_bandwidth", "Data rate of a module")
    test_mode = config("test_mode", "Test pattern in place of counts")
    sensor_material = config("sensor_material", "Material that absorbs the X-rays")
    sensor_thickness = config("sensor_thickness", "Thickness of the sensor [m]")
    x_pixel_size = config("x_pixel_size", "Size of a pixel along x [m]")
    y_pixel_size = config("y_pixel_size", "Size of a pixel along y [m]")
    x_pixels_in_detector = config("x_pixels_in_detector", "Pixels along x")
    y_pixels_in_detector = config("y_pixels_in_detector", "Pixels along y")
    chi_start = config("chi_start", "Goniometer angle chi of the first image [degree]")
    chi_increment = config("chi_increment", "Step of chi an image [degree]")
    kappa_start = config("kappa_start", "Goniometer angle kappa of the first image [degree]")
    kappa_increment = config("kappa_increment", "Step of kappa an image [degree]")
    omega_start = config("omega_start", "Goniometer angle omega of the first image [degree]")
    omega_increment = config("omega_increment", "Step of omega an image [degree]")
    phi_start = config("phi_start", "Goniometer angle phi of the first image [degree]")
    phi_increment = config("phi_increment", "Step of phi an image [degree]")
    two_theta_start = config("two_theta_start", "Detector angle of the first image [degree]")
    two_theta_increment = config("two_theta_increment", "Step of the detector angle [degree]")

    state = status("state", "na, initialize, idle, configure, ready, acquire, test or error")
    error = status("error", "Status values that make an error")
    time = status("time", "Clock of the DCU")
    board_000_th0_temp = status("board_000/th0_temp", "Temperature [degree Celsius]")
    board_000_th0_humidity = status("board_000/th0_humidity", "Relative humidity [percent]")
    builder_dcu_buffer_free = status("builder/dcu_buffer_free", "Free image buffer [percent]")

    initialize = command(
        "initialize",
        "Set the detector up; puts everything to its default",
        timeout="initialize",
        ends_series=True,
    )
    arm = command(
        "arm", "Load the configuration, wait for triggers", timeout="arm", ends_series=True
    )
    disarm = command(
        "disarm", "End the series and write its last file", timeout="end", ends_series=True
    )
    soft_trigger = command("trigger", "Take nimages images (mode ints)", cls=TriggerCommand)
    cancel = command("cancel", "End the series after this image", timeout="end", out_of_turn=True)
    abort = command("abort", "End the series at once", timeout="end", out_of_turn=True)
    status_update = command("status_update", "Measure temperature and humidity anew")


class Filewriter(Subsystem):
    """Configuration, state and commands of the file writer (V1.3 section 3.3)."""

    subsystem = "filewriter"

    mode = config("mode", "Whether files are written: enabled, disabled")
    transfer_mode = config("transfer_mode", "How files leave the DCU: http")
    nimages_per_file = config("nimages_per_file", "Images in a data file; 0: all in the master")
    image_nr_start = config("image_nr_start", "Number of the first image in the first data file")
    name_pattern = config("name_pattern", "Start of the file names; $id is the series' id")
    compression_enabled = config("compression_enabled", "Whether images are written compressed")

    state = status("state", "disabled, ready, acquire or error")
    error = status("error", "Status values that make an error")
    time = status("time", "Clock of the DCU")
    buffer_free = status("buffer_free", "Free space for files [kB at API 1.6]")

    clear = command("clear", "Delete every file on the DCU")
    initialize = command("initialize", "Put the file writer to its defaults")


class Monitor(Subsystem):
    """Configuration, state and commands of the monitor (V1.3 section 3.2)."""

    subsystem = "monitor"

    mode = config("mode", "Whether images are kept for the monitor: enabled, disabled")
    buffer_size = config("buffer_size", "Images that the monitor keeps")

    state = status("state", "normal, or overflow if images were dropped")
    error = status("error", "Status values that make an error")
    buffer_fill_level = status("buffer_fill_level", "Images kept, and images that fit")
    dropped = status("dropped", "Images dropped since the last clear")
    next_image_number = status("next_image_number", "Series and image last asked for as next")
    monitor_image_number = status("monitor_image_number", "Series and image last asked for")

    clear = command("clear", "Drop the images kept")
    initialize = command("initialize", "Put the monitor to its defaults")


class Stream(Subsystem):
    """Configuration, state and commands of the ZeroMQ stream (API 1.6)."""

    subsystem = "stream"

    mode = config("mode", "Whether images are streamed: enabled, disabled")
    header_detail = config("header_detail", "How much the stream's header says")
    header_appendix = config("header_appendix", "Text added to the stream's header")
    image_appendix = config("image_appendix", "Text added to each image's message")

    state = status("state", "disabled, ready, acquire or error")
    error = status("error", "Status values that make an error")
    dropped = status("dropped", "Images that nobody fetched")

    initialize = command("initialize", "Put the stream to its defaults")


class System(Subsystem):
    """Commands of the DCU's system (V1.3 section 3.4)."""

    subsystem = "system"

    restart = command(
        "restart",
        "Restart the DCU's software; the state is na afterwards",
        timeout="initialize",
        ends_series=True,
    )
