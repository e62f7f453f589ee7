"""The parameter trees of the detector generations, as data."""
