"""Keys are in no message, output or file, whatever fails."""

import logging

import pytest

import circuit_toolkit as ct
from circuit_toolkit.errors import ToolkitError
from circuit_toolkit.features.descriptions.explainer import Explainer

KEY = "hf_" + "s3cr3t" * 5


@pytest.fixture
def keys(monkeypatch):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "NDIF_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, KEY)


@pytest.mark.parametrize(
    "call",
    [
        lambda model: ct.load_model("no-one/no-such-model", token=KEY),
        lambda model: ct.load_model("no-one/no-such-model", token=KEY, no_such_option=KEY),
        lambda model: ct.load_dictionaries(model, "no-one/no-such-saes", ids=["a"]),
        lambda model: ct.Task.from_hub(model, "mib-bench/ioi"),
        lambda model: ct.capture(model, {}, ["a"], remote=True),
    ],
)
def test_no_error_or_log_holds_a_key(tiny, keys, call, caplog, capfd):
    with caplog.at_level(logging.DEBUG), pytest.raises(ToolkitError) as caught:
        call(tiny)
    error = caught.value
    while error is not None:
        assert KEY not in str(error) and KEY not in repr(error)
        error = error.__cause__
    out = capfd.readouterr()
    assert KEY not in caplog.text + out.out + out.err


def test_answers_are_kept_without_the_key(tiny, tiny_folder, keys, tmp_path, capfd):
    class Client:
        def __init__(self, key):
            self.key = key

        def ask(self, prompt):
            return "a concept"

    transcoders = ct.load_dictionaries(tiny, tiny_folder, kind="transcoder")
    found = ct.WeightLens("robust").describe(tiny, transcoders, progress=False)
    explainer = Explainer(Client(KEY).ask, max_calls=10_000, store=tmp_path / "answers")
    explained = found.explained(explainer)
    explained.save(tmp_path / "found.json")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 1 and not [path for path in files if KEY.encode() in path.read_bytes()]
    out = capfd.readouterr()
    assert KEY not in out.out + out.err
