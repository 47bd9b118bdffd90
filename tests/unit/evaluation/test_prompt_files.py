"""Prompts and examples from files."""

from __future__ import annotations

import pytest

from pretextlm.errors import UserError
from pretextlm.evaluation.prompt_files import Example, Template, read_conversations, read_examples, read_prompts


def test_a_template_shows_the_examples_and_stops_where_the_target_stands():
    template = Template("English: {input}\nFrench: {target}\n\n")
    prompt = template.prompt([Example("cat", "chat"), Example("{target}", "{input}")], "house")
    assert prompt == "English: cat\nFrench: chat\n\nEnglish: {target}\nFrench: {input}\n\nEnglish: house\nFrench:"
    assert template.stop_strings() == ("\n\n",)
    assert Template("{input} {target}").stop_strings() == ()


@pytest.mark.parametrize("text", ["", "{input}", "{target} {input}", "{input} {input} {target}"])
def test_a_template_without_one_input_and_one_target_behind_it_is_refused(text):
    with pytest.raises(UserError, match="template"):
        Template(text)


def test_examples_are_read_from_both_kinds_of_file(tmp_path):
    (tmp_path / "a.tsv").write_text("cat\tchat\r\n\ndog\tchien\n", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('{"input": "cat", "target": "chat"}\n{"input": "dog", "target": "chien"}\n')
    assert read_examples(tmp_path / "a.tsv") == read_examples(tmp_path / "a.jsonl")
    assert read_examples(tmp_path / "a.tsv")[0] == Example("cat", "chat")


@pytest.mark.parametrize("line", ["{}", "[1]", '{"input": "cat"}', '{"input": "cat", "target": 1}', "{"])
def test_a_line_that_is_no_example_is_named(tmp_path, line):
    (tmp_path / "a.jsonl").write_text('{"input": "a", "target": "b"}\n' + line)
    with pytest.raises(UserError, match="line 2"):
        read_examples(tmp_path / "a.jsonl")


def test_a_file_without_a_prompt_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("\n  \n")
    with pytest.raises(UserError, match="no prompt"):
        read_prompts(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        read_prompts(tmp_path / "a.txt")
    (tmp_path / "a.jsonl").write_text('"a"\n{"text": "b"}\n{"prompt": "c", "text": "d"}')
    assert read_prompts(tmp_path / "a.jsonl") == ["a", "b", "c"]
    (tmp_path / "a.jsonl").write_text('{"content": "b"}')
    with pytest.raises(UserError, match="line 1"):
        read_prompts(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    "line", [r'"\udcff"', r'{"prompt": "\ud800"}', r'{"messages": [{"role": "a", "content": "\udfff"}]}']
)
def test_half_a_character_is_named(tmp_path, line):
    (tmp_path / "a.jsonl").write_text(f'"A river"\n{line}\n')
    with pytest.raises(UserError, match="line 2 holds half a character"):
        read_conversations(tmp_path / "a.jsonl")


@pytest.mark.parametrize("messages", ["5", '[{"role": 5, "content": "a"}]', '[{"role": "user"}]', '["a"]'])
def test_a_conversation_of_other_types_is_named(tmp_path, messages):
    (tmp_path / "a.jsonl").write_text(f'{{"messages": {messages}}}\n')
    with pytest.raises(UserError, match="line 1: no messages"):
        read_conversations(tmp_path / "a.jsonl")
