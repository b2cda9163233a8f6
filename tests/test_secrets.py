"""Secrets are known by name, by reference and by shape, and redacted from whatever is taken in or written."""

import json
import os
import stat

import pytest
import yaml

from tests.simulated import simulated_study
from tuner import composing, secrets
from tuner.errors import ConfigError
from tuner.records.folder import StudyFolder
from tuner.secrets import Secrets, is_api_key, is_secret, of_headers, redact, redacted, redacted_file


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "VLLM_API_KEY",
        "VLLM_API_KEY_GLM",
        "api_key",
        "PGPASSWORD",
        "hf_token",
        "HF_TOKEN_WORK",
        "DATABASE_URL",
        "REDIS_URL",
        "GITHUB_PAT",
        "SENTRY_DSN",
        "SLACK_WEBHOOK",
        "SLACK_WEBHOOK_URL",
        "OPENAI_KEY",
        "SSH_KEY",
        "DB_PASS",
        "MY_PASSWORD",
        "--api-key",
        "PASSWORD1",
        "DB_PASS_2",
        "LDAP_BIND_PW",
        "HF_TOKENS",
        "NGROK_AUTHTOKEN",
        "DATABASE_URL_PROD",
        "STORAGE_CONN_STR",
        "STRIPE_SK",
        "SLACK_HOOK_URL",
        "GCP_SERVICE_ACCOUNT_JSON",
        "clientSecret",
        "accessToken",
    ],
)
def test_a_secret_is_known_by_its_name(name):
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "max_num_batched_tokens",
        "VLLM_PORT_GLM",
        "VLLM_MODEL_GLM",
        "TOKENIZERS_PARALLELISM",
        "tokenizer",
        "OMP_NUM_THREADS",
        "block_size",
        "long_prefill_token_threshold",
        "PWD",
        "PATH",
        "HF_TOKEN_PATH",
        "token_env",
        "eos_token",
        "KEYBOARD",
        "BYPASS",
        "fuse_pass",
        "audio_token",
        "MAX_TOKENS",
        "AUTH_TYPE",
        "pass_config",
    ],
)
def test_a_setting_is_no_secret(name):
    assert not is_secret(name)


def test_a_key_that_clients_show_is_told_from_a_token_that_downloads():
    assert is_api_key("VLLM_API_KEY_GLM")
    assert not is_api_key("HF_TOKEN")


def test_a_file_is_read_as_compose_reads_it_and_wins_over_the_environment(tmp_path):
    file = tmp_path / ".env"
    file.write_text(
        "# comment\nexport HF_TOKEN=hf_from_file\nVLLM_API_KEY_GLM='quoted # not a comment'\n"
        'OTHER="two words"  # said so\nVLLM_PORT_GLM=5002 # the port\nEMPTY=\nnot a line\n'
    )
    found = Secrets.of(file, {"HF_TOKEN": "hf_environment", "MINE_API_KEY": "from-outside"})
    assert found.get("HF_TOKEN") == "hf_from_file"
    assert found.get("VLLM_API_KEY_GLM") == "quoted # not a comment"
    assert (found.get("OTHER"), found.get("VLLM_PORT_GLM"), found.get("EMPTY")) == ("two words", "5002", None)
    assert set(found.hidden) == {"hf_from_file", "quoted # not a comment", "from-outside"}
    assert found.named(["HF_TOKEN", "EMPTY", "NOT_SET"]) == {"HF_TOKEN": "hf_from_file"}


def test_a_file_that_is_not_there_holds_nothing(tmp_path):
    assert Secrets.of(tmp_path / ".env", {}).hidden == ()


def test_a_secret_inside_another_is_cut_whole():
    hidden = Secrets({"A_TOKEN": "abcdefgh", "B_TOKEN": "abcdefgh-longer"}).hidden
    assert redact("abcdefgh-longer and abcdefgh", hidden) == "*** and ***"


def test_a_word_too_short_to_be_a_secret_is_not_cut_out_of_innocent_text():
    assert Secrets({"A_TOKEN": "no"}).hidden == ()


def test_secrets_are_in_no_repr():
    assert "hush-hush" not in repr(Secrets({"A_TOKEN": "hush-hush"}))


def test_a_header_is_cut_with_and_without_its_scheme():
    assert of_headers({"Authorization": "Bearer sesame-4711"}) == ("Bearer sesame-4711", "sesame-4711")


SITE = """
HUGGING_FACE_HUB_TOKEN=hf_abcdefghijklmnopqrst
VLLM_API_KEY_GLM=glm-planted-0001
VLLM_MODEL_GLM=QuantTrio/GLM-4.7-Flash-AWQ
VLLM_PORT_GLM=5002
"""
"""A deployment's ``.env``."""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder with that file in it, and this process's list of secrets as it was before."""
    monkeypatch.setattr(secrets, "_listed", {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(SITE)
    return tmp_path


DEPLOYMENT = "secrets.deployment={KEY: VLLM_API_KEY_GLM, MODEL: VLLM_MODEL_GLM, PORT: VLLM_PORT_GLM}"


def test_the_first_users_keys_are_hidden_while_model_and_port_stay_readable(site):
    composing.load(["experiment=demo", DEPLOYMENT])
    text = SITE + "serving QuantTrio/GLM-4.7-Flash-AWQ on 127.0.0.1:5002, key glm-planted-0001\n"
    for cut in (redacted(text), redacted_file(text)):
        assert "glm-planted-0001" not in cut
        assert "hf_abc" not in cut
        assert "serving QuantTrio/GLM-4.7-Flash-AWQ on 127.0.0.1:5002" in cut


def test_values_are_hidden_for_being_listed_or_referenced_whatever_their_variable_is_called(site):
    (site / ".env").write_text("ALPHA=planted-value-0001\nBETA=planted-value-0002\nGAMMA=not-a-secret-0003\n")
    composing.load(["experiment=demo", "secrets.trial=[ALPHA]", "secrets.redact=[BETA]"])
    assert redacted("planted-value-0001 planted-value-0002 not-a-secret-0003") == "*** *** not-a-secret-0003"


@pytest.mark.parametrize("value", ["8000", "true", "/srv/models/glm", "~/.cache/huggingface/token", "1.5e3", "short"])
def test_ports_paths_and_switches_are_hidden_under_no_name(value):
    assert Secrets({"A_TOKEN": value, "B": value}, named_as_secret=frozenset({"B"})).hidden == ()


@pytest.mark.parametrize("value", ["12345678", "4929-1200-0022", "49291200.0022", "1234 5678 9012"])
def test_a_number_is_hidden_where_somebody_said_so_and_nowhere_else(value):
    known = Secrets({"A_PIN": value, "B_PIN": "98765432"}, named_as_secret=frozenset({"A_PIN"}))
    assert redact(f"{value} 98765432", known.hidden) == "*** 98765432"


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("postgresql://tuner:geheim@db/x", "geheim"),
        ("got sk-abcdefghijklmnop1234", "sk-abc"),
        ("clone https://ghp_abcdefghijklmnop1234@github.com", "ghp_"),
        ("https://hooks.slack.com/services/T000/B000/abcdef", "B000"),
        ("Authorization: Bearer abcdef123456", "abcdef123456"),
        ("non-default args: {'api_key': ['geheim-0001']}", "geheim"),
        ("serve --hf-token geheim-0001 --port 8000", "geheim"),
        ("serve --api-key=geheim-0001 --port 8000", "geheim"),
        ("MY_PASSWORD=geheim-0001", "geheim"),
        ('{"msg": "{\\"clientSecret\\": \\"geheim-0001\\"}"}', "geheim"),
        ("{'db_password': 'four words geheim 0001'}", "geheim"),
        ("GET /v1?access_token=geheim-0001&x=1", "geheim"),
        ("postgres://me:p@ss-geheim@db/x", "geheim"),
        ("pushed to https://glwt0123456789geheim00@git.example/x", "geheim"),
        ("key sk_live_51abcdefghijklmnop", "51abc"),
        ("-----BEGIN RSA PRIVATE KEY-----\\nMIIgeheim+/=\\n-----END", "geheim"),
    ],
)
def test_a_secret_that_nobody_listed_is_known_by_its_shape_or_the_name_in_front_of_it(text, gone):
    assert gone not in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "bytes_per_token=54144, max_num_batched_tokens: 8192",
        "KeyError: 'model.layers.0.mlp'",
        "ValueError: unknown key: 'kv_lora_rank'",
        "non-default args: {'long_prefill_token_threshold': 0, 'hf_token': None, 'tokenizer_mode': 'auto'}",
        "http://127.0.0.1:8000/v1/models@main",
    ],
)
def test_what_an_engine_says_of_itself_stays_readable(text):
    assert redacted(text) == text


def test_a_file_can_be_read_back_after_its_secrets_are_gone(site):
    value = 'planted"with\\quotes'
    words = "planted words " * 12 + "until the line breaks"
    secrets.hide([value, words, "plant\u00e9d'0001"])
    tree = {
        "words": words,
        "accent": "plant\u00e9d'0001",
        "a": value,
        "b": f"x {value} y",
        "c": "hf_abcdefghijklmnopqrst",
        "d": "redis://u:geheim@h/0",
    }
    tree["e"] = "Authorization: Basic geheim-0001"
    for dump, load in ((json.dumps, json.loads), (yaml.safe_dump, yaml.safe_load)):
        read = load(redacted_file(dump(tree)))
        assert set(read) == set(tree)
        assert not any(word in str(read) for word in ("planted", "plant", "hf_abc", "geheim"))


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("model.env.MY_PASSWORD=geheim1", "model.env.MY_PASSWORD"),
        ("model.env.OPENAI_KEY=geheim1", "model.env.OPENAI_KEY"),
        ("model.env.X=sk-abcdefghijklmnop1234", "model.env.X"),
        ("model.env.X='redis://u:geheim@h/0'", "model.env.X"),
        ("model.env.X='Authorization: Bearer geheim-0001'", "model.env.X"),
        ("model.env.X='bearer geheim-0001'", "model.env.X"),
        ("model.env.X=glm-planted-0001", "model.env.X"),
        ("model.args.chat_template=hf_abcdefghijklmnopqrst", "model.args.chat_template"),
        ("storage.url='postgresql://u:geheim@h/db'", "storage.url"),
    ],
)
def test_a_secret_in_a_configuration_is_refused_by_name_shape_and_value(site, override, place):
    with pytest.raises(ConfigError, match="secret") as refused:
        composing.load(["experiment=demo", override])
    assert refused.value.place == place
    assert not any(word in str(refused.value) for word in ("geheim", "sk-abc", "hf_abc", "planted"))


def test_a_secret_among_a_launchers_variables_is_refused():
    docker = ["experiment=demo", "launcher=docker", "launcher.image=x", "launcher.env.MY_PASSWORD=geheim1"]
    with pytest.raises(ConfigError, match=r"launcher\.env\.MY_PASSWORD"):
        composing.load(docker)


def test_no_file_of_a_study_holds_a_secret_and_nobody_else_may_read_one(site):
    secrets.hide(["planted-0001"])
    outcome = simulated_study(site / "studies", 2, "study.confirm=0")
    folder = outcome.folder
    leaky = outcome.records[0].model_copy(update={"env": {"X": "planted-0001"}, "argv": ("a", "--x=planted-0001")})
    folder.trial(0).save(leaky)
    folder.write(folder.config, outcome.config.to_yaml() + "# planted-0001\n")
    folder.write(folder.compose, "X: planted-0001\n")
    for path in (folder.path, *folder.path.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
        assert path.is_dir() or "planted" not in path.read_text()
    assert StudyFolder(folder.path).records()[0].env == {"X": secrets.MASK_IN_FILES}


@pytest.mark.parametrize("made", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_an_env_that_is_no_file_is_named_and_not_waited_for(made, tmp_path):
    made(tmp_path / ".env")
    with pytest.raises(ConfigError, match=r"secrets\.file: .* cannot be read"):
        Secrets.of(tmp_path / ".env")
