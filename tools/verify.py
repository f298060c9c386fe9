"""Is every log-probability right? `python tools/verify.py`; --help lists sections and keys.

Prints a row for each check, writes pictures, report.md, report.json and TensorBoard events; exits 0
if all hold, 1 otherwise. Wrong formulas are run too, and have to be rejected.
"""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.errors import StorageFault, remedy
from runtime.launch.door import guarded
from tools.gallery import settings

STATES = 8  # of a trained policy, at which it is audited
APART = 12  # steps between the moments at which the states are taken

if TYPE_CHECKING:
    from tools.gallery.report import Check, Section


def main(arguments: list[str]) -> int:
    """The command; returns its exit code."""
    return guarded(lambda: run(arguments), arguments)


def run(arguments: list[str]) -> int:
    """Runs what the arguments ask for; returns 0 if all of it holds, else 1."""
    if any(argument in ("-h", "--help") for argument in arguments):
        print(settings.help_text())
        return 0
    options, chosen = settings.parse(arguments)
    import torch

    torch.set_num_threads(1)  # nothing here is large
    if options.false_alarms:
        return false_alarms(options.false_alarms, chosen)
    started = time.perf_counter()
    from tools.gallery.report import HEADER, line, summary

    checks: list[Check] = []
    images: dict[str, Any] = {}
    if options.run:
        checks, images["run"] = audit_run(
            options.run, options.checkpoint, options.seed, options.env_id or None
        )
        chosen = {}
    folder = make_folder(options.out)
    print("\n".join(line(cells) for cells in [HEADER, *(row.cells for row in checks)]))
    for name, image in images.items():
        save(image, folder / f"{name}.png")
    for section in sections(chosen):
        rows = section.checks(options.seed)
        print("\n".join(line(row.cells) for row in rows), flush=True)
        checks += rows
        images[section.name] = picture(section, options.seed, folder)
    write(folder, options.seed, chosen, checks, images)
    print(f"\n{summary(checks)}; {time.perf_counter() - started:.0f} s; {folder / 'report.md'}")
    return int(not all(check.passed for check in checks))


def sections(chosen: dict[str, Any]) -> "list[Section]":
    """The sections with their settings, in the order of the gallery."""
    from tools.gallery.densities import DensitySection
    from tools.gallery.entropies import Entropy
    from tools.gallery.functions import LogExp, LogSoftmax, TanhAtanh

    others = {
        "log_exp": LogExp,
        "tanh_atanh": TanhAtanh,
        "log_softmax": LogSoftmax,
        "entropy": Entropy,
    }
    return [others.get(name, DensitySection)(name, given) for name, given in chosen.items()]


def audit_run(
    run: str, checkpoint: str, seed: int, env_id: str | None
) -> "tuple[list[Check], Any]":
    """Rows and picture for the newest valid checkpoint of a run (or `best`, or a name).

    Raises:
        ConfigError: `run` is no run directory, or its environment's module was not named.
        StorageFault: no checkpoint in it is valid.
    """
    import torch

    from audit.live import at_states
    from audit.picture import picture
    from common.seeding import derive
    from runtime.deploy.trained import open_trained
    from tools.gallery.report import Check

    trained = open_trained(
        run, checkpoint, episodes=STATES, seed=derive(seed, "audit-episodes"), env_id=env_id
    )
    for warning in trained.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    generator = torch.Generator().manual_seed(derive(seed, "audit"))
    agent, envs = trained.agent, trained.evaluator.envs
    try:
        met = []
        for index in range(STATES):
            for _ in range(APART):
                envs.step(*agent.act(envs.obs, generator=generator))
            met.append(envs.obs[index])
    finally:
        trained.evaluator.close()
    findings = at_states(agent, torch.stack(met), generator)
    rows = [
        Check(f"step {trained.step}", f"state {index}: {t.name}", t.figure, t.bound, t.passed)
        for index, finding in enumerate(findings)
        for t in finding.trials
    ]
    return rows, picture(findings[:4])


def make_folder(out: str) -> Path:
    """A new folder; one that exists is taken if it is empty, else the name gets a suffix."""
    from storage.rundir import make_by_time, make_new

    if not out:
        return make_by_time(Path("runs/verify"))
    wanted = Path(out)
    if wanted.is_dir() and not any(wanted.iterdir()):
        return wanted
    return make_new(wanted, "out")


def picture(section: "Section", seed: int, folder: Path) -> Any:
    """Writes the picture of a section; returns its pixels."""
    from tools.gallery.pictures import PICTURES, pixels

    image = pixels(PICTURES[section.name](section, seed))
    save(image, folder / f"{section.name}.png")
    return image


def save(image: Any, path: Path) -> None:
    """Writes pixels as PNG; raises StorageFault."""
    from matplotlib.image import imsave

    try:
        imsave(path, image)
    except OSError as error:
        raise StorageFault(f"{path}: cannot be written, {error}; {remedy(error)}") from error


def write(
    folder: Path, seed: int, chosen: dict[str, Any], checks: "list[Check]", images: dict[str, Any]
) -> None:
    """The report as Markdown, as JSON, and in TensorBoard."""
    from runtime.logger import Logger
    from storage import provenance, rundir
    from tools.gallery.report import markdown, plain

    set_to = {name: settings.plain(given) for name, given in chosen.items()}
    documents = {name: settings.SECTIONS[name].__doc__ or name for name in chosen}
    text = markdown(checks, set_to, documents)
    rundir.write_text(folder / "report.md", text)
    passed = all(check.passed for check in checks)
    report = {
        "passed": passed,
        "seed": seed,
        "settings": set_to,
        "checks": [plain(check) for check in checks],
        "versions": provenance.versions(),
        "revision": provenance.revision(),
    }
    rundir.write_json(folder / "report.json", report)
    logger = Logger(folder)
    logger.text("verify/report", text)
    for name, image in images.items():
        logger.image(f"verify/{name}", image, 0)
    logger.close()


def false_alarms(seeds: int, chosen: dict[str, Any]) -> int:
    """Draws the whole gallery anew for seeds 1, 2, ...; right code should never fail. 0 if so."""
    gallery, failures = sections(chosen), 0
    least: dict[tuple[str, str], float] = {}
    for seed in range(1, seeds + 1):
        rows = [row for section in gallery for row in section.drawn(seed)]
        failures += not all(row.passed for row in rows)
        for row in rows:
            key = row.section, row.name
            least[key] = min(row.figure, least.get(key, 1.0))
    for (section, name), p_value in least.items():
        print(f"{section:<20}  {name:<70}  smallest {p_value:.2g}")
    print(f"\n{len(least)} tests of chance; the gallery failed on {failures} of {seeds} seeds")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
