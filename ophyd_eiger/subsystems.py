"""The SIMPLON resources as ophyd Components: attribute, key, kind and meaning, one line each.

No limits, no defaults, no choices: the detector says those itself. A `/` in a key becomes `_` in
the attribute; `command/trigger` is `soft_trigger`, because `trigger` is bluesky's verb. Resources
that a detector does not serve are left out of its readings: some are EIGER1's, some EIGER2's.

Source: SIMPLON API Reference V1.3, section 3; for what later firmware adds, the references 1.6 and
1.8, and replies recorded from detectors of both generations.
"""

from ophyd import Kind

from ophyd_eiger.commands import HighVoltageReset, TriggerCommand
from ophyd_eiger.declare import array, command, config, status
from ophyd_eiger.replies import number_of
from ophyd_eiger.subsystem import Subsystem, refresh

__all__ = ["Detector", "Filewriter", "Monitor", "Stream", "Subsystem", "System", "refresh"]


class Detector(Subsystem):
    """Configuration, state and commands of the detector (V1.3 section 3.1)."""

    subsystem = "detector"
    names_changes = True

    @property
    def start_delay(self) -> float:
        """How long after a trigger its exposures begin, in s; 0 where a DCU has no delay."""
        return max(number_of(self.trigger_start_delay.last) or 0.0, 0.0)

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
    flatfield = array("flatfield", "Flat-field factors, float32 of shape (y, x)", "<f4")
    pixel_mask = array(
        "pixel_mask",
        "Bits a pixel: 0 gap, 1 dead, 2 under-, 3 over-responding, 4 noisy; uint32 (y, x)",
        "<u4",
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
    nsequences = config("nsequences", "Series that were armed for")
    summation_nimages = config("summation_nimages", "Images that are summed to one")
    auto_sum_strict = config("auto_sum_strict", "Whether an image is no sum that may overflow")
    binning_mode = config("binning_mode", "How pixels are joined")
    pixel_format = config("pixel_format", "How a pixel is stored")
    roi_bit_depth = config("roi_bit_depth", "Bits of a pixel in a fast region of interest")
    roi_y_size = config("roi_y_size", "Height of a region of interest [pixel]")
    counting_mode = config("counting_mode", "How pulses that pile up count: normal, retrigger")
    countrate_correction_table = config(
        "countrate_correction_table", "Corrected counts by counts", kind=Kind.omitted
    )
    mask_to_zero = config("mask_to_zero", "Whether masked pixels hold 0 in images")
    extg_mode = config("extg_mode", "What gates do in mode extg: single, double")
    nexpi = config("nexpi", "Exposures that make an image in mode extg")
    ntriggers_skipped = config("ntriggers_skipped", "Triggers that are passed over after each")
    trigger_start_delay = config(
        "trigger_start_delay", "Time from a trigger to the exposure that it starts [s]"
    )
    fast_arm = config("fast_arm", "Whether arm skips what did not change")
    incident_energy = config("incident_energy", "Energy of the incident particles [eV]")
    incident_particle_type = config("incident_particle_type", "Kind of the incident particles")
    instrument_name = config("instrument_name", "Name of the instrument, for the master file")
    sample_name = config("sample_name", "Name of the sample, for the master file")
    source_name = config("source_name", "Name of the source, for the master file")
    total_flux = config("total_flux", "Flux at the sample, for the master file")
    flux_type = config("flux_type", "What flux_value counts, for the master file")
    flux_value = config("flux_value", "Flux at the sample, for the master file")
    test_image_mode = config("test_image_mode", "Test image in place of counts")
    test_image_value = config("test_image_value", "Value of the pixels of a test image")
    threshold_1_energy = config("threshold/1/energy", "Energy above which threshold 1 counts [eV]")
    threshold_1_mode = config("threshold/1/mode", "Whether threshold 1 has images")
    threshold_1_number_of_excluded_pixels = config(
        "threshold/1/number_of_excluded_pixels", "Pixels that are masked for threshold 1"
    )
    threshold_1_flatfield = array(
        "threshold/1/flatfield", "Flat-field factors of threshold 1, float32 (y, x)", "<f4"
    )
    threshold_1_pixel_mask = array(
        "threshold/1/pixel_mask", "Bits a pixel for threshold 1, uint32 (y, x)", "<u4"
    )
    threshold_2_energy = config("threshold/2/energy", "Energy above which threshold 2 counts [eV]")
    threshold_2_mode = config("threshold/2/mode", "Whether threshold 2 has images")
    threshold_2_number_of_excluded_pixels = config(
        "threshold/2/number_of_excluded_pixels", "Pixels that are masked for threshold 2"
    )
    threshold_2_flatfield = array(
        "threshold/2/flatfield", "Flat-field factors of threshold 2, float32 (y, x)", "<f4"
    )
    threshold_2_pixel_mask = array(
        "threshold/2/pixel_mask", "Bits a pixel for threshold 2, uint32 (y, x)", "<u4"
    )
    threshold_difference_mode = config(
        "threshold/difference/mode", "Whether the difference of two thresholds has images"
    )
    threshold_difference_lower_threshold = config(
        "threshold/difference/lower_threshold", "Number of the threshold that is subtracted from"
    )
    threshold_difference_upper_threshold = config(
        "threshold/difference/upper_threshold", "Number of the threshold that is subtracted"
    )
    detector_orientation_angle = config(
        "detector_orientation_angle", "Angle of the detector about its axis [degree]"
    )
    detector_orientation_axis = config(
        "detector_orientation_axis", "Unit vector that the detector is turned about"
    )
    transformation_order = config("transformation_order", "Order of the goniometer's axes")
    chi_axis = config("chi_axis", "Unit vector of the axis chi")
    kappa_axis = config("kappa_axis", "Unit vector of the axis kappa")
    omega_axis = config("omega_axis", "Unit vector of the axis omega")
    phi_axis = config("phi_axis", "Unit vector of the axis phi")
    two_theta_axis = config("two_theta_axis", "Unit vector of the axis two-theta")
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

    link_0 = status("link_0", "Data link 0: up, down")
    link_1 = status("link_1", "Data link 1: up, down")
    link_2 = status("link_2", "Data link 2: up, down")
    link_3 = status("link_3", "Data link 3: up, down")
    temperature = status("temperature", "Temperature [degree Celsius]")
    humidity = status("humidity", "Relative humidity [percent]")
    high_voltage_state = status("high_voltage/state", "NA, OFF, RAMPING or READY")
    series_unique_id = status("series_unique_id", "Name of the series, alike for no two")

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
    wait = command("wait", "Wait for the end of the series (undocumented)", timeout="initialize")
    hv_reset = command(
        "hv_reset",
        "Switch the high voltage off for set(seconds) [s]",
        cls=HighVoltageReset,
        timeout="initialize",
        ends_series=True,
    )
    check_connections = command(
        "check_connections", "Test the data links", timeout="initialize", ends_series=True
    )


class Filewriter(Subsystem):
    """Configuration, state and commands of the file writer (V1.3 section 3.3)."""

    subsystem = "filewriter"

    mode = config("mode", "Whether files are written: enabled, disabled")
    transfer_mode = config("transfer_mode", "How files leave the DCU: http")
    nimages_per_file = config("nimages_per_file", "Images in a data file; 0: all in the master")
    image_nr_start = config("image_nr_start", "Number of the first image in the first data file")
    name_pattern = config("name_pattern", "Start of the file names; $id is the series' id")
    format = config("format", "Which format the files have")
    compression_enabled = config("compression_enabled", "Whether images are written compressed")

    state = status("state", "disabled, ready, acquire or error")
    error = status("error", "Status values that make an error")
    time = status("time", "Clock of the DCU")
    buffer_free = status("buffer_free", "Free space for files [kB at API 1.6, byte at 1.8]")
    files = status("files", "Names of the files on the DCU")

    clear = command("clear", "Delete every file on the DCU")
    initialize = command("initialize", "Put the file writer to its defaults")


class Monitor(Subsystem):
    """Configuration, state and commands of the monitor (V1.3 section 3.2)."""

    subsystem = "monitor"

    mode = config("mode", "Whether images are kept for the monitor: enabled, disabled")
    buffer_size = config("buffer_size", "Images that the monitor keeps")
    discard_new = config("discard_new", "Whether a full buffer drops the newest image")

    state = status("state", "normal, or overflow if images were dropped")
    error = status("error", "Status values that make an error")
    buffer_fill_level = status("buffer_fill_level", "Images kept, and images that fit")
    buffer_free = status("buffer_free", "Free space for images [byte]")
    dropped = status("dropped", "Images dropped since the last clear")
    next_image_number = status("next_image_number", "Series and image last asked for as next")
    monitor_image_number = status("monitor_image_number", "Series and image last asked for")

    clear = command("clear", "Drop the images kept")
    initialize = command("initialize", "Put the monitor to its defaults")


class Stream(Subsystem):
    """Configuration, state and commands of the ZeroMQ stream (API 1.6)."""

    subsystem = "stream"

    mode = config("mode", "Whether images are streamed: enabled, disabled")
    format = config("format", "How messages are written: legacy, cbor")
    header_detail = config("header_detail", "How much the stream's header says")
    header_appendix = config("header_appendix", "Text added to the stream's header")
    image_appendix = config("image_appendix", "Text added to each image's message")

    state = status("state", "disabled, ready, acquire or error")
    error = status("error", "Status values that make an error")
    dropped = status("dropped", "Images that nobody fetched")

    initialize = command("initialize", "Put the stream to its defaults")


class System(Subsystem):
    """Configuration and commands of the DCU's system (V1.3 section 3.4)."""

    subsystem = "system"

    system_info_service_tag = config("system_info/service_tag", "Service tag of the DCU")

    restart = command(
        "restart",
        "Restart the DCU's software; the state is na afterwards",
        timeout="initialize",
        ends_series=True,
    )
    reboot = command(
        "reboot",
        "Start the DCU's computer again; the state is na afterwards",
        timeout="initialize",
        ends_series=True,
    )
    shutdown = command(
        "shutdown", "Switch the DCU's computer off", timeout="initialize", ends_series=True
    )
    create_log_tarball = command("create_log_tarball", "Pack the logs for the maker")
    delete_logs = command("delete_logs", "Delete the logs")
