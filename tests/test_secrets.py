"""Secrets are known by their names, read as Compose reads them, and cut out of whatever is taken in."""

import pytest

from tuner.secrets import Secrets, is_api_key, is_secret, of_headers, redact


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "VLLM_API_KEY", "VLLM_API_KEY_GLM", "api_key", "PGPASSWORD", "hf_token"],
)
def test_a_secret_is_known_by_its_name(name):
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    ["max_num_batched_tokens", "VLLM_PORT_GLM", "TOKENIZERS_PARALLELISM", "tokenizer", "OMP_NUM_THREADS", "block_size"],
)
def test_a_setting_is_no_secret(name):
    assert not is_secret(name)


def test_a_key_that_clients_show_is_told_from_a_token_that_downloads():
    assert is_api_key("VLLM_API_KEY_GLM")
    assert not is_api_key("HF_TOKEN")


def test_a_file_is_read_as_compose_reads_it_and_wins_over_the_environment(tmp_path):
    file = tmp_path / ".env"
    file.write_text(
        "# comment\nexport HF_TOKEN=hf_file\nVLLM_API_KEY_GLM='quoted # not a comment'\n"
        'OTHER="two words"  # said so\nVLLM_PORT_GLM=5002 # the port\nEMPTY=\nnot a line\n'
    )
    found = Secrets.of(file, {"HF_TOKEN": "hf_environment", "MINE_API_KEY": "from-outside"})
    assert found.get("HF_TOKEN") == "hf_file"
    assert found.get("VLLM_API_KEY_GLM") == "quoted # not a comment"
    assert (found.get("OTHER"), found.get("VLLM_PORT_GLM"), found.get("EMPTY")) == ("two words", "5002", None)
    assert set(found.hidden) == {"hf_file", "quoted # not a comment", "from-outside"}
    assert found.named(["HF_TOKEN", "EMPTY", "NOT_SET"]) == {"HF_TOKEN": "hf_file"}


def test_a_file_that_is_not_there_holds_nothing(tmp_path):
    assert Secrets.of(tmp_path / ".env", {}).hidden == ()


def test_a_secret_inside_another_is_cut_whole():
    hidden = Secrets({"A_TOKEN": "abcdef", "B_TOKEN": "abcdef-longer"}).hidden
    assert redact("abcdef-longer and abcdef", hidden) == "*** and ***"


def test_a_word_too_short_to_be_a_secret_is_not_cut_out_of_innocent_text():
    assert Secrets({"A_TOKEN": "no"}).hidden == ()


def test_secrets_are_in_no_repr():
    assert "hush-hush" not in repr(Secrets({"A_TOKEN": "hush-hush"}))


def test_a_header_is_cut_with_and_without_its_scheme():
    assert of_headers({"Authorization": "Bearer sesame-4711"}) == ("Bearer sesame-4711", "sesame-4711")
