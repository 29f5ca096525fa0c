"""Measures everything in one go, and writes benchmarks/results/.

    python -m benchmarks

Takes about ten minutes, in which the machine should have nothing else to do.
"""

from benchmarks import batch_sizes, end_to_end, machine, pipeline_speed, report


def main() -> None:
    described = machine.describe()
    speed = pipeline_speed.measure()
    print(pipeline_speed.tables(speed))
    sizes = batch_sizes.measure()
    print(batch_sizes.tables(sizes))
    whole = end_to_end.measure()
    print(end_to_end.tables(whole))
    print(f"written: {report.write(described, speed, sizes, whole)}")


if __name__ == "__main__":
    main()
