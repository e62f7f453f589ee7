"""A simulated EIGER detector control unit (DCU) that speaks the SIMPLON API over HTTP."""

from sim_dcu.serve import Server, serve

__all__ = ["Server", "serve"]
