"""The comparison of settings as rows of text, for the page, the notebook and the terminal, and as numbers for CSV."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stkvlm_lib.analysis.comparison import FEWEST_CLUSTERS
from stkvlm_lib.analysis.comparison import Comparison as PairedFigures
from stkvlm_lib.analysis.sections import Rows, filled
from stkvlm_lib.batch.differences import difference
from stkvlm_lib.batch.results import FAMILY, MEASURES, Result, Setting, in_order, varying
from stkvlm_lib.grammar.questions import in_order as families_in_order
from stkvlm_lib.number_text import NOTHING, count, interval, number, percent, points

VARIED = "varied: "
"""How the name of a column begins in CSV that holds a parameter in which settings differ."""


@dataclass(frozen=True)
class Comparison:
    """Settings, the best on valid first. baseline: what the differences are to. differences: by name of the setting,
    of those that have one; problems: why others have none."""

    settings: list[Setting]
    baseline: Setting
    differences: dict[str, PairedFigures]
    problems: dict[str, str]

    @property
    def chosen(self) -> Setting | None:
        """The best on valid; None where no run was scored on it. Test has no say in it."""
        return next((setting for setting in self.settings if setting.values("valid_exact")), None)

    @property
    def results(self) -> list[Result]:
        """The runs of all settings."""
        return [result for setting in self.settings for result in setting.results]

    @property
    def scored(self) -> list[Result]:
        return [result for result in self.results if not result.problem]

    @property
    def varied(self) -> list[str]:
        """The parameters in which the settings differ."""
        return varying([setting.parameters for setting in self.settings])

    @property
    def fixed(self) -> dict[str, Any]:
        """The parameters that all settings share."""
        first = next((setting.parameters for setting in self.settings if setting.parameters), {})
        return {name: value for name, value in first.items() if name not in self.varied}


def compare_settings(
    settings: Sequence[Setting], compare_to: str = "", *, resamples: int = 1000, seed: int = 0
) -> Comparison:
    """compare_to: the name of the setting that the others are compared with; by default the first that has a score.

    Raises ValueError where there is none of that name.
    """
    names = [setting.name for setting in settings]
    if compare_to and compare_to not in names:
        raise ValueError(f"{compare_to}: no such setting; there are {', '.join(names)}")
    scored = [setting for setting in settings if setting.scored]
    baseline = settings[names.index(compare_to)] if compare_to else scored[0]
    differences, problems = {}, {}
    for setting in settings:
        try:
            if setting is not baseline:
                differences[setting.name] = difference(setting, baseline, resamples=resamples, seed=seed)
        except (OSError, ValueError) as error:
            problems[setting.name] = str(error)
    return Comparison(in_order(settings), baseline, differences, problems)


def setting_rows(comparison: Comparison) -> Rows:
    """One row a setting: what varies, how many seeds, scores as mean and spread, the difference, what it took."""
    rows = []
    for setting in comparison.settings:
        figures = comparison.differences.get(setting.name)
        rows.append(
            {
                "setting": setting.name,
                **{name: _value(setting.parameters.get(name)) for name in comparison.varied},
                "seeds": f"{len(setting.seeds)} of {len({result.seed for result in setting.results})}",
                "valid": share(setting, "valid_exact"),
                "test": share(setting, "exact"),
                f"less {comparison.baseline.name}, points": points(figures and figures.difference),
                "95% interval": interval(figures and figures.difference_ci95, points),
                "verdict": "compared with" if setting is comparison.baseline else short_verdict(figures),
                "training, min": measured(setting, "train_seconds", 60),
                "memory, GB": measured(setting, "peak_memory_mb", 1000),
                "adapter, MB": measured(setting, "adapter_mb", 1, 2),
            }
        )
    return filled(rows)


def _value(value: Any) -> str:
    return NOTHING if value is None else str(value)


def short_verdict(figures: PairedFigures | None) -> str:
    """In a word or two what `verdict` of the figures says."""
    if not figures:
        return NOTHING
    words = {"few": f"only {figures.n_clusters} {figures.clusters}s", "chance": "within chance"}
    return words.get(figures.decided, figures.decided)


def share(setting: Setting, measure: str) -> str:
    """A mean of shares with its spread over the seeds in points: 81.2% ± 0.8."""
    spread = setting.spread(measure)
    return percent(setting.mean(measure)) + (f" ± {100 * spread:.1f}" if spread is not None else "")


def measured(setting: Setting, measure: str, unit: float, digits: int = 1) -> str:
    """The mean of a figure in another unit."""
    value = setting.mean(measure)
    return number(value / unit, digits) if value is not None else NOTHING


def seed_rows(comparison: Comparison) -> Rows:
    """Settings x seeds: each run's test score."""
    seeds = sorted({result.seed for result in comparison.results})
    rows = []
    for setting in comparison.settings:
        row = {"setting": setting.name}
        for seed in seeds:
            found = [percent(r.figures.get("exact")) for r in setting.scored if r.seed == seed]
            row[f"seed {seed}"] = ", ".join(found) or NOTHING
        values, spread = setting.values("exact"), setting.spread("exact")
        row["mean"] = percent(setting.mean("exact"))
        row["spread, points"] = number(100 * spread) if spread is not None else NOTHING
        row["range"] = f"{percent(min(values))} to {percent(max(values))}" if len(values) > 1 else NOTHING
        rows.append(row)
    return filled(rows)


def family_rows(comparison: Comparison) -> Rows:
    """Families of questions x settings: the mean of the runs' test scores."""
    settings = [setting for setting in comparison.settings if setting.scored]
    names = families_in_order({name for run in comparison.scored for name in run.figures.get("families") or ()})
    return [{"family": name, **{s.name: percent(s.mean(FAMILY + name)) for s in settings}} for name in names]


def missing_rows(comparison: Comparison) -> Rows:
    """The runs that have no score, and why."""
    return [{"run": result.name, "why": result.problem} for result in comparison.results if result.problem]


def headline(comparison: Comparison) -> str:
    """The setting chosen by the valid races, and its test score, told once."""
    best = comparison.chosen
    if best is None:
        return "No run was scored on valid races, so none is chosen; test scores alone must not choose a setting."
    second = next((s for s in comparison.settings if s is not best and s.mean("valid_exact") is not None), None)
    gap = best.mean("valid_exact") - second.mean("valid_exact") if second else 0.0
    ahead = "" if not second else f", {points(gap)} points to the next" if gap else ", the first of equals"
    n, seeds = len(best.values("valid_exact")), len(best.seeds)
    over = "" if n < 2 else f" (mean of {n} seeds)" if n == seeds else f" (mean of {n} runs)"
    sizes = {result.figures.get("n") for result in comparison.scored}
    asked = f" of {count(*sizes)} questions" if len(sizes) == 1 else ""
    return (
        f"{best.name} is best on the valid races: {share(best, 'valid_exact')}{over}{ahead}. "
        f"On test it has {share(best, 'exact')}{asked}."
    )


def notes(comparison: Comparison) -> list[str]:
    """What a reader must know before believing the table."""
    found = []
    sizes = sorted({(str(r.figures.get("split")), r.figures.get("n")) for r in comparison.scored}, key=str)
    if len(sizes) > 1:
        told = ", ".join(f"{count(n)} of {split}" for split, n in sizes)
        found.append(f"The runs were not asked the same questions ({told}); only the paired differences compare them.")
    commits = sorted({str(r.figures.get("commit")) for r in comparison.scored})
    if len(commits) > 1:
        found.append(f"The runs were made by different states of the code (commits {', '.join(commits)}).")
    races = {figures.n_clusters for figures in comparison.differences.values()}
    if races and min(races) < FEWEST_CLUSTERS:
        found.append(
            f"Only {min(races)} races were scored: an interval over fewer than {FEWEST_CLUSTERS} is too narrow to tell."
        )
    if all(len(setting.seeds) < 2 for setting in comparison.settings):
        found.append("One seed a setting: how much another seed would change is not known.")
    few = {setting.name for setting in comparison.settings if 0 < len(setting.scored) < len(setting.results)}
    if few:
        found.append(f"Not all seeds of {', '.join(sorted(few))} have a score; means over other seeds are not alike.")
    for setting in comparison.settings:
        if len(setting.seeds) < len(setting.scored):
            told = f"{len(setting.scored)} runs of {count(len(setting.seeds))} seed{'s' * (len(setting.seeds) > 1)}"
            found.append(f"{setting.name} has {told}: its spread is too small where a seed counts more than once.")
    return found + [f"{name}: no paired difference ({why})." for name, why in comparison.problems.items()]


def run_records(comparison: Comparison) -> list[dict[str, Any]]:
    """One row a run, in numbers, for CSV."""
    return [
        {
            "setting": setting.name,
            "seed": result.seed,
            "run": result.name,
            "state": result.problem or "done",
            **{VARIED + name: result.parameters.get(name) for name in comparison.varied},
            **{name: result.figures.get(name) for name in ("n", *MEASURES, "macro_exact", "blind", "wall_seconds")},
            "commit": result.figures.get("commit"),
        }
        for setting in comparison.settings
        for result in setting.results
    ]


def setting_records(comparison: Comparison) -> list[dict[str, Any]]:
    """One row a setting, in numbers, for CSV."""
    rows = []
    for setting in comparison.settings:
        figures = comparison.differences.get(setting.name)
        low, high = figures.difference_ci95 if figures else (None, None)
        row = {"setting": setting.name, "chosen": setting is comparison.chosen, "seeds": len(setting.seeds)}
        row |= {VARIED + name: setting.parameters.get(name) for name in comparison.varied}
        for measure in MEASURES:
            row |= {f"{measure}_mean": setting.mean(measure), f"{measure}_sd": setting.spread(measure)}
        row |= {"compared_with": comparison.baseline.name, "difference": figures and figures.difference}
        row |= {"difference_low": low, "difference_high": high, "races": figures and figures.n_clusters}
        rows.append(row)
    return rows
