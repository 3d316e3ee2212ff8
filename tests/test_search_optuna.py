import logging
import warnings

import numpy as np
import optuna
import pytest
from search_toy import TOY, judged, toy_cost, toy_problem, toy_scores

from nas.search import SEARCHERS
from nas.search.loop import SearchSettings, run_search
from nas.search.optuna_searcher import CONSTRAINT, STUDY_NAME, RecordedStudy
from nas.trial import Trial

NAMES = ("optuna-tpe", "optuna-nsga2")
TRIALS = 14
WANTED = TOY.encode(TOY.largest())


def load(path) -> optuna.Study:
    """Open a study as Optuna's tools do."""
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    return optuna.load_study(study_name=STUDY_NAME, storage=storage)


def run(name, problem, path, trials=TRIALS, done=()):
    recorded = list(done)
    run_search(problem, SEARCHERS[name](problem, path), toy_scores, SearchSettings(trials), recorded.append, done)
    return recorded


def told(study: optuna.Study) -> list[tuple]:
    """What a study holds, times aside."""
    return [(t.number, t.state, t.values, t.params, t.constraints, t.system_attrs) for t in study.get_trials()]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("objectives", [(), ("macs",)])
def test_the_journal_holds_the_trials_of_the_run(name, objectives, tmp_path):
    problem = toy_problem(0.7, objectives=objectives)
    trials = run(name, problem, tmp_path / "study.journal")
    study = load(tmp_path / "study.journal")
    assert study.metric_names == ["val_error", *objectives]
    assert {d.name for d in study.directions} == {"MINIMIZE"}
    for trial, stored in zip(trials, study.trials, strict=True):
        assert stored.params == dict(trial.architecture.choices)
        if trial.state == "complete":
            assert stored.values == problem.objective_values(trial).tolist()
            assert stored.constraints == {CONSTRAINT: 0.0}
        else:
            assert stored.state == optuna.trial.TrialState.FAIL
    assert len(study.best_trials) >= 1


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_writes_the_same_journal(name, tmp_path):
    problem = toy_problem(0.7)
    trials = run(name, problem, tmp_path / "whole")
    path = tmp_path / "resumed"
    assert len(run(name, problem, path, trials=6)) < len(trials)
    path.with_name("resumed.lock").symlink_to("resumed")  # as a killed process leaves it
    resumed = run(name, problem, path, done=trials[:5])
    assert all(a.same_as(b) for a, b in zip(resumed, trials, strict=True))
    assert told(load(path)) == told(load(tmp_path / "whole"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["resumed", "whole"]


@pytest.mark.parametrize("name", NAMES)
def test_without_a_path_nothing_is_written(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(name, toy_problem(), None, trials=3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_foreign_and_infeasible_trials_reach_the_journal(name, tmp_path):
    problem = toy_problem(0.5)
    searcher = SEARCHERS[name](problem, tmp_path / "study")
    searcher.tell([Trial(0, TOY.largest(), "infeasible", toy_cost(TOY.largest())), judged(problem, 1, TOY.smallest())])
    first, second = load(tmp_path / "study").trials
    assert first.params == dict(TOY.largest().choices) and first.constraints[CONSTRAINT] > 0
    assert first.values == [1.0, toy_cost(TOY.largest()).value("macs")]
    assert second.params == dict(TOY.smallest().choices)


@pytest.mark.parametrize("name", NAMES)
def test_optuna_is_quiet_and_left_as_it_was(name, capfd):
    level = optuna.logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(name, toy_problem(0.5), None)
    assert optuna.logging.get_verbosity() == level == logging.INFO
    assert capfd.readouterr().err == ""


def test_tpe_learns():
    """Where every decision counts, TPE proposes better networks than its startup draws."""
    problem = toy_problem(None, objectives=())
    searcher = SEARCHERS["optuna-tpe"](problem, None)
    accuracies = []
    for i in range(20):
        (arch,) = searcher.ask(1)
        accuracies.append(float(np.mean([v == w for v, w in zip(TOY.encode(arch), WANTED, strict=True)])))
        searcher.tell([Trial(i, arch, "complete", toy_cost(arch), {"val_accuracy": accuracies[-1]})])
    assert np.mean(accuracies[10:]) > np.mean(accuracies[:10]) + 0.2


@pytest.mark.parametrize("name", ["random", "evolution", *NAMES])
def test_a_study_of_recorded_trials_is_what_a_journal_holds(name, tmp_path):
    problem = toy_problem(0.7, objectives=("macs",))
    trials = run(name, problem, tmp_path / "study.journal")
    recorded = RecordedStudy("toy", problem.objectives, {c.name: c.options for c in TOY.choices})
    for trial in trials:
        recorded.add(trial)
    study = optuna.load_study(study_name="toy", storage=recorded.storage)
    if name in NAMES:
        journal = load(tmp_path / "study.journal")
        for ours, theirs in zip(study.trials, journal.trials, strict=True):
            assert (ours.state, ours.values, ours.params) == (theirs.state, theirs.values, theirs.params)
            assert ours.distributions == theirs.distributions
    for trial, stored in zip(trials, study.trials, strict=True):
        assert stored.params == dict(trial.architecture.choices) and stored.user_attrs["key"] == trial.architecture.key
        assert stored.user_attrs["macs"] == trial.cost.value("macs") and stored.user_attrs["error"] == trial.error
    assert study.metric_names == ["val_error", "macs"] and len(study.best_trials) >= 1


def test_what_is_not_known_of_a_recorded_trial_is_not_made_up():
    trial = Trial(0, TOY.largest(), "complete", toy_cost(TOY.largest()), {"val_accuracy": 0.5})
    some = {c.name: c.options for c in TOY.choices[:1]}
    recorded = RecordedStudy("toy", ("latency_ms",), some)
    recorded.add(trial)
    (stored,) = optuna.load_study(study_name="toy", storage=recorded.storage).trials
    assert stored.state == optuna.trial.TrialState.FAIL and set(stored.params) == set(some)
    others = dict(trial.architecture.choices).items() - stored.params.items()
    assert others <= stored.user_attrs.items()
