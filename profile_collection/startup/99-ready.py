"""What is there, in a few lines."""

if eiger.care.signals:
    print(
        f"eiger: {eiger.detector.description.last} at {eiger.address}, "
        f"state {eiger.detector.state.last!r}; {len(installed_suspenders)} suspenders are on"
    )
    for alarm in eiger.care.alarms:
        print(f"  {alarm}")
print(f"cat: {len(cat)} runs; files and all that stays are in {data_folder}")
if not screen.windows:
    print(f"plots: {screen.why_not}; show_plots() draws them into files")
print("ready: RE(count([eiger], 3)), RE(series(eiger, 0.1, 20)), show_last(), where(), live()")
if simulator:
    print('simulated: light("flat", 10000) or another light, and shutter for the plans')
