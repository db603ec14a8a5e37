"""The command `labelspace` with its verbs; turns every failure into one line and an exit code."""

from __future__ import annotations

import os
import sys

import click

from cli.bundle import export, predict
from cli.bundles import bundles
from cli.corpus import corpus
from cli.demo import demo
from cli.evaluating import evaluate
from cli.inspecting import inspect
from cli.labels import labels
from cli.planning import plan
from cli.reindexing import reindex
from cli.serve import serve
from cli.train import train


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="labelspace")
def labelspace() -> None:
    """Predict the right few of very many labels: train, export, serve, and add labels while serving."""


for verb in (corpus, train, export, evaluate, inspect, predict, labels, reindex, bundles, plan, serve, demo):
    labelspace.add_command(verb)


def main() -> None:
    """Run the command; exit code 0 when done, 1 when the work failed, 2 when the call or its input was wrong."""
    from index.errors import LabelspaceError

    try:
        labelspace(standalone_mode=False)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.Abort:
        _fail("stopped", 1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except LabelspaceError as error:
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        # The reader has gone (as with `| head`): nothing is left to say, and nothing to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        _fail("stopped", 1)
    except ModuleNotFoundError as error:
        if error.name != "faiss":
            raise
        _fail("FAISS is not installed: pip install 'labelspace[cpu]', or 'labelspace[gpu]' for graphics cards", 1)
    except MemoryError:
        _fail("not enough memory", 1)
    except OSError as error:
        _fail(f"{error.filename or 'system'}: {error.strerror or error}", 1)


def _fail(line: str, code: int) -> None:
    click.echo(f"labelspace: {line}", err=True)
    sys.exit(code)
