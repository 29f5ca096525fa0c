"""Runs the main benchmarks and writes benchmarks/results/.

    python -m benchmarks

Takes about ten minutes. The machine should be otherwise idle.
"""

from benchmarks import batch_sizes, end_to_end, machine, pipeline_speed, report


def main() -> None:
    described = machine.describe()
    speed = pipeline_speed.measure()
    print(pipeline_speed.tables(speed))
    sizes = batch_sizes.measure()
    print(batch_sizes.tables(sizes))
    service = end_to_end.measure()
    print(end_to_end.tables(service))
    print(f"written: {report.write(described, speed, sizes, service)}")


if __name__ == "__main__":
    main()
