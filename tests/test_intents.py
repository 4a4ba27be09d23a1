"""What a model may choose: names, schemas, and what is said when something does not fit."""

import pytest
from pydantic import ValidationError

from ownloop import App, Intent
from ownloop.intents import UnknownIntent, find_intents, load_intent, members, schema_of, snake_case


class DeployBackend(Intent):
    """Deploy the backend at a tag. High stakes."""

    tag: str
    replicas: int = 1


class Done(Intent):
    message: str


@pytest.mark.parametrize(
    ("name", "snake"),
    [("DeployBackend", "deploy_backend"), ("HTTPGet2", "http_get2"), ("Done", "done"), ("S3Upload", "s3_upload"), ("ListGitTags", "list_git_tags")],
)
def test_an_intent_is_named_by_its_class_in_snake_case(name: str, snake: str) -> None:
    assert snake_case(name) == snake


def test_there_is_no_tag_field_and_the_docstring_is_the_description() -> None:
    [choice, _] = schema_of(DeployBackend | Done)["oneOf"]
    assert choice["title"] == "deploy_backend"
    assert choice["description"] == "Deploy the backend at a tag. High stakes."
    assert choice["properties"]["intent"] == {"const": "deploy_backend"}
    assert set(choice["properties"]["arguments"]["properties"]) == {"tag", "replicas"}


def test_a_recorded_call_fits_the_schema_and_a_wrong_one_does_not() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(schema_of(list[DeployBackend | Done]))
    assert check.is_valid({"intent": "deploy_backend", "arguments": {"tag": "v1"}})
    assert not check.is_valid({"intent": "deploy_backend", "arguments": {"tag": 1}})
    assert not check.is_valid({"intent": "deploy_backend", "arguments": {"tag": "v1", "force": True}})
    assert not check.is_valid({"intent": "drop_database", "arguments": {}})


def test_an_intent_cannot_be_changed_after_it_was_chosen() -> None:
    intent = DeployBackend(tag="v1")
    with pytest.raises(ValidationError, match="frozen"):
        intent.tag = "v2"  # type: ignore[misc]


def test_a_field_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        DeployBackend.model_validate({"tag": "v1", "force": True})


def test_a_call_whose_class_is_gone_says_which_are_known() -> None:
    intent = load_intent("drop_database", {"name": "prod"}, {"done": Done})
    assert isinstance(intent, UnknownIntent)
    assert (intent.name, intent.arguments) == ("drop_database", {"name": "prod"})
    assert "drop_database" in intent.why and "done" in intent.why


def test_a_call_that_its_class_refuses_says_where() -> None:
    intent = load_intent("deploy_backend", {"tag": "v1", "replicas": "many"}, {"deploy_backend": DeployBackend})
    assert isinstance(intent, UnknownIntent) and "replicas" in intent.why


def test_two_classes_of_one_name_are_an_error_at_registration() -> None:
    class Deploy_Backend(Intent):
        pass

    async def handler(thread: object) -> None: ...

    with pytest.raises(TypeError, match=r"are both named 'deploy_backend'.*rename one"):
        App("memory://").add(handler, intents=[DeployBackend, type("DeployBackend", (Intent,), {})])
    assert Deploy_Backend.intent_name == "deploy_backend"


@pytest.mark.parametrize("wrong", [str, dict[str, int], 3, "DeployBackend"])
def test_what_is_no_choice_of_intents_is_refused_with_the_way_to_write_it(wrong: object) -> None:
    with pytest.raises(TypeError, match="write A, A | B or list"):
        members(wrong)


def test_intents_are_found_in_the_attribute_the_annotation_and_a_callable_object() -> None:
    def annotated(thread: object) -> DeployBackend | list[Done]:
        raise NotImplementedError

    class Model:
        def __call__(self, thread: object) -> DeployBackend | Done:
            raise NotImplementedError

    def declared(thread: object):  # type: ignore[no-untyped-def]
        raise NotImplementedError

    declared.intents = Done  # type: ignore[attr-defined]
    assert find_intents(annotated) == (DeployBackend, Done)
    assert find_intents(Model()) == (DeployBackend, Done)
    assert find_intents(declared) == (Done,)
    assert find_intents(lambda thread: Done(message="x")) == ()
