"""The command ``fastopt``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import fastopt
from fastopt.app import demo


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code; like all of argparse, a wrong argument exits with 2."""
    try:
        try:
            return run(argv)
        finally:
            if sys.stdout:
                sys.stdout.flush()  # Here, where a closed pipe can be caught, and not when the interpreter ends.
    except BrokenPipeError:
        # Whoever read has enough, as `head` has. What is left must not be written when the interpreter ends.
        for stream in filter(None, (sys.stdout, sys.stderr)):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 141
    except KeyboardInterrupt:
        return 130


def run(argv: Sequence[str] | None) -> int:
    parser = Parser(prog="fastopt", description="Exact, fused optimizer kernels for NumPy arrays.")
    parser.add_argument("--version", action="version", version=f"fastopt {fastopt.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, run, about in [
        ("bench", run_bench, "time steps beside those of the libraries that are installed"),
        ("demo", run_demo, "train a small network with every optimizer, kernels against NumPy"),
        ("info", run_info, "what runs here: version, compiler, instruction set, threads"),
        ("selftest", run_selftest, "compare every kernel with its NumPy twin on this CPU, bit for bit"),
    ]:
        command = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        command.set_defaults(run=run, parser=command)
        if name == "demo":
            add_demo_options(command)
        if name == "bench":
            command.add_argument("--out", type=Path, metavar="FILE.json", help="all that was measured, as JSON")
    args = parser.parse_args(argv)
    if not hasattr(args, "run"):
        parser.print_help(sys.stderr)
        return 2
    return int(args.run(args))


def add_demo_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--optimizer",
        type=optimizer,
        action="append",
        metavar="NAME",
        help=f"only this one; repeat for more: {', '.join(demo.ROWS)}",
    )
    add("--torch", action="store_true", help="in PyTorch instead: its AdamW, its fused one, and fastopt.torch's")
    add("--epochs", type=at_least(1), default=30, metavar="N", help="passes over the data (default: %(default)s)")
    add("--batch-size", type=at_least(1), default=32, metavar="N", help="images in a step (default: %(default)s)")
    add("--lr", type=float, metavar="X", help="learning rate, for all the chosen optimizers (default: one for each)")
    add("--seed", type=at_least(0), default=0, metavar="N", help="of weights and mini-batches (default: %(default)s)")
    add("--dtype", choices=["float32", "float64"], default="float32", help="(default: %(default)s)")
    add(
        "--out",
        type=Path,
        default=Path("fastopt-demo.png"),
        metavar="PATH",
        help=f"the picture of the loss curves, {', '.join(demo.PICTURES)} (default: %(default)s)",
    )


def optimizer(text: str) -> str:
    """The key in demo.ROWS of a name as the table or the help has it."""
    key = text.lower().replace(" ", "-")
    if key not in demo.ROWS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(demo.ROWS)}")
    return key


def at_least(minimum: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number, {minimum} or larger")
        return value

    return whole_number


def run_bench(args: argparse.Namespace) -> int:
    from fastopt.app.benchmark import command

    try:
        command.run(args.out)
    except command.BenchError as e:
        args.parser.error(str(e))
    return 0


def run_demo(args: argparse.Namespace) -> int:
    if args.torch:
        return run_torch_demo(args)
    rows = [demo.ROWS[key] for key in dict.fromkeys(args.optimizer or demo.ROWS)]
    try:
        same = demo.run(
            rows,
            epochs=args.epochs,
            batch_size=args.batch_size,
            lr=args.lr,
            seed=args.seed,
            dtype=args.dtype,
            out=args.out,
        )
    except demo.DemoError as e:
        args.parser.error(str(e))
    return 0 if same else 1


def run_torch_demo(args: argparse.Namespace) -> int:
    if args.optimizer:
        args.parser.error("--torch has AdamW only: leave out --optimizer")
    try:
        same = demo.run_in_torch(
            epochs=args.epochs, batch_size=args.batch_size, lr=args.lr, seed=args.seed, dtype=args.dtype, out=args.out
        )
    except demo.DemoError as e:
        args.parser.error(str(e))
    return 0 if same else 1


def run_info(args: argparse.Namespace) -> int:
    print(fastopt.info())
    return 0


def run_selftest(args: argparse.Namespace) -> int:
    report = fastopt.selftest()
    print(report)
    return 0 if report else 1


if __name__ == "__main__":
    sys.exit(main())
