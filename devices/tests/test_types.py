"""A configuration must fit its type, whichever way it comes in; and which do not is found out for many."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection
from django.db.models import ProtectedError
from django.test.utils import CaptureQueriesContext

from devices.models import DeviceConfig, DeviceType, DoesNotFit, SchemaDraft
from devices.schemas import check_schema
from devices.tests.types import DOES_NOT, FITS, MAC, SCHEMA, STRICTER, WHY, make_config, make_type
from devices.types import marking
from devices.types.runner import Judge
from iotsupport.models import Throttle

pytestmark = pytest.mark.usefixtures("transactional_db")


class TestASave:
    @pytest.mark.both_databases
    def test_of_what_does_not_fit_is_refused_and_changes_nothing(self) -> None:
        config = make_config(make_type())
        config.content = DOES_NOT

        with pytest.raises(DoesNotFit, match="This does not fit the type “gate”") as refusal:
            config.save()

        assert refusal.value.messages == [f"This does not fit the type “gate”. {WHY}"]
        assert DeviceConfig.objects.get().content == FITS

    def test_without_a_type_is_as_ever(self) -> None:
        assert make_config(None, DOES_NOT).fits is None

    def test_of_a_type_that_it_does_not_fit_is_refused(self) -> None:
        config = make_config(None, DOES_NOT)
        config.type = make_type()

        with pytest.raises(DoesNotFit):
            config.save(update_fields=["type"])

        assert DeviceConfig.objects.get().type is None

    @pytest.mark.both_databases
    def test_is_marked_where_somebody_wants_it_although_it_does_not_fit(self) -> None:
        config = make_config(make_type())
        config.content, config.although_it_does_not_fit = DOES_NOT, True

        config.save()

        saved = DeviceConfig.objects.get()
        assert (saved.content, saved.fits) == (DOES_NOT, False)
        with pytest.raises(DoesNotFit):  # it was wanted once
            saved.save()

    def test_that_fits_again_is_marked_no_more(self) -> None:
        config = make_config(make_type(), DOES_NOT)
        config.content = FITS

        config.save(update_fields=["content"])

        assert DeviceConfig.objects.get().fits is True

    def test_of_other_fields_asks_for_no_schema(self) -> None:
        config = make_config(make_type(), DOES_NOT)

        config.save(update_fields=["updated_by"])

        assert DeviceConfig.objects.get().fits is False

    def test_keeps_its_type_when_it_is_put(self) -> None:
        make_config(make_type())

        with pytest.raises(DoesNotFit):
            DeviceConfig.objects.put(MAC, DOES_NOT)

        assert DeviceConfig.objects.put(MAC, '{"pin": 1}').fits is True

    def test_is_refused_for_an_import(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        make_config(make_type())
        (tmp_path / f"{MAC}.json").write_text(DOES_NOT)

        with pytest.raises(CommandError):
            call_command("import_configs", str(tmp_path))

        assert WHY in capsys.readouterr().err
        assert DeviceConfig.objects.get().content == FITS

    @pytest.mark.both_databases
    def test_of_a_version_whose_type_is_gone_has_none(self) -> None:
        device_type = make_type()
        config = make_config(device_type)
        config.delete()
        device_type.delete()

        DeviceConfig.history.first().instance.save(force_insert=True)

        assert DeviceConfig.objects.get().type is None


class TestAType:
    @pytest.mark.both_databases(once=True)
    @pytest.mark.parametrize("name", ["  Gate  ", "Gate"])
    def test_has_its_name_in_one_spelling(self, name: str) -> None:
        assert make_type(name).name == "Gate"

    @pytest.mark.both_databases
    @pytest.mark.parametrize("other", ["GATE", "ｇａｔｅ", " gate"])
    def test_has_a_name_of_its_own_whatever_the_case(self, other: str) -> None:
        make_type("gate")

        with pytest.raises(ValidationError, match="Another type has this name"):
            DeviceType(name=other, schema=SCHEMA).full_clean()
        with pytest.raises(IntegrityError):
            make_type(other)

    @pytest.mark.parametrize(
        ("name", "sentence"),
        [
            (" ", "A type needs a name."),
            ("a/b", "SOLIDUS (U+002F) cannot stand in a name."),
            ("a\u200bb", "ZERO WIDTH SPACE (U+200B) cannot stand in a name."),
            ("a\nb", "U+000A) cannot stand in a name."),
            (".a", "A name cannot begin with a point."),
            ("x" * 101, "100 are allowed"),
            ("ﷺ" * 90, "This name is too long."),
        ],
    )
    def test_cannot_have_any_name(self, name: str, sentence: str) -> None:
        with pytest.raises(ValidationError) as refusal:
            make_type(name)

        assert sentence in refusal.value.message_dict["name"][0]

    def test_cannot_have_what_is_no_schema(self) -> None:
        with pytest.raises(ValidationError) as refusal:
            make_type(schema='{"type": 5}')

        assert "This is no JSON Schema" in refusal.value.message_dict["schema"][0]

    @pytest.mark.parametrize(("content", "sentence"), [(DOES_NOT, WHY), ('{"pin": }', "a value is missing here")])
    def test_begins_with_what_fits_it(self, content: str, sentence: str) -> None:
        with pytest.raises(ValidationError) as refusal:
            make_type(starting_content=content)

        assert sentence in refusal.value.message_dict["starting_content"][0]

    @pytest.mark.both_databases
    def test_stays_while_a_configuration_has_it(self) -> None:
        device_type = make_type()
        make_config(device_type)

        with pytest.raises(ProtectedError):
            device_type.delete()

    def test_keeps_its_versions(self) -> None:
        device_type = make_type()
        device_type.schema = STRICTER
        device_type.save()

        assert [version.schema for version in device_type.history.all()] == [STRICTER, SCHEMA]


def addresses(count: int) -> list[str]:
    return [f"02-00-00-00-{number // 256:02x}-{number % 256:02x}" for number in range(count)]


def make_many(device_type: DeviceType, count: int, wrong: set[int]) -> None:
    """Every seventh is marked wrongly."""
    DeviceConfig.objects.bulk_create(
        DeviceConfig(
            mac_address=mac_address,
            content=f'{{"pin": {4 if number in wrong else 2}}}',
            type=device_type,
            fits=number % 7 != 0,
        )
        for number, mac_address in enumerate(addresses(count))
    )


def marked() -> set[str]:
    return set(DeviceConfig.objects.filter(fits=False).values_list("mac_address", flat=True))


def work() -> None:
    while marking.step():
        pass


@pytest.mark.both_databases
class TestAnotherSchema:
    def test_marks_all_that_do_not_fit_it_and_no_others_in_few_statements(self) -> None:
        device_type, wrong = make_type(), set(range(11, 5000, 25))
        make_many(device_type, 5000, wrong)
        device_type.schema = STRICTER
        device_type.save()

        with CaptureQueriesContext(connection) as statements:
            work()

        assert marked() == {addresses(5000)[number] for number in wrong}
        assert DeviceType.objects.get().marks_after is None
        assert len(statements) < 12 * (5000 / marking.STEP_ROWS + 2)

    def test_goes_on_where_it_was_when_it_is_cut_off(self) -> None:
        device_type = make_type()
        make_many(device_type, 450, {440})
        device_type.schema = STRICTER
        device_type.save()
        marking.step()

        assert DeviceType.objects.get().marks_after
        work()

        assert marked() == {addresses(450)[440]}

    def test_judges_what_is_there_when_it_marks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        device_type = make_type()
        config = make_config(device_type)
        device_type.schema = STRICTER
        device_type.save()
        judge = marking._judge

        def judge_and_have_somebody_save(*args: object) -> object:
            judged = list(judge(*args))  # type: ignore[arg-type]
            if DeviceConfig.objects.get().content == FITS:
                DeviceConfig.objects.put(config.mac_address, '{"pin": 1}')
            return judged

        monkeypatch.setattr(marking, "_judge", judge_and_have_somebody_save)

        work()

        assert marked() == set()

    def test_that_is_saved_again_meanwhile_begins_anew(self) -> None:
        device_type = make_type()
        make_many(device_type, 250, {3, 240})
        device_type.schema = STRICTER
        device_type.save()
        before = DeviceType.objects.get()
        marking.step()
        device_type.schema = SCHEMA
        device_type.save()

        marking.mark_some(before)  # by the schema that is not there any more
        work()

        assert marked() == set()

    def test_is_tried_before_it_is_saved(self) -> None:
        device_type = make_type()
        make_many(device_type, 450, {5, 440})
        draft = draft_of(device_type, STRICTER)

        work()

        draft.refresh_from_db()
        assert (draft.is_tried, draft.tried, draft.misfits, draft.total) == (True, 450, 2, 450)
        assert [mac_address for _, mac_address, _ in draft.found] == [addresses(450)[5], addresses(450)[440]]
        assert draft.found[0][2] == "Line 1, column 9: pin must be one of 1, 2; is 4."
        assert DeviceType.objects.get().schema == SCHEMA

    def test_that_takes_too_long_is_not_saved(self, monkeypatch: pytest.MonkeyPatch) -> None:
        device_type = make_type(schema="{}")
        make_many(device_type, 3, set())
        draft = draft_of(device_type, STRICTER)
        check_schema(STRICTER)
        monkeypatch.setattr("devices.schemas.keywords.MOST_SECONDS", -1)

        work()

        draft.refresh_from_db()
        assert draft.trouble.startswith(f"{addresses(1)[0]} takes longer than a second to be checked")
        assert not draft.may_be_saved


def draft_of(device_type: DeviceType, schema: str) -> SchemaDraft:
    user, _ = User.objects.get_or_create(username="ada")
    typed = DeviceType.objects.get(pk=device_type.pk)
    typed.schema = schema
    draft = SchemaDraft.of(typed, based_on=device_type.fingerprint, typed_by=user)
    draft.save()
    return draft


@pytest.mark.both_databases
class TestTheThread:
    def test_does_what_is_wanted_and_leaves_it_to_others_afterwards(self) -> None:
        device_type = make_type()
        make_many(device_type, 10, {3})
        device_type.schema = STRICTER
        device_type.save()

        assert Judge().work()

        assert marked() == {addresses(10)[3]}
        assert Throttle.objects.take("judge configurations by their types", timedelta(seconds=1))

    def test_waits_while_another_process_is_at_it(self) -> None:
        device_type = make_type()
        make_many(device_type, 10, {3})
        device_type.schema = STRICTER
        device_type.save()
        Throttle.objects.take("judge configurations by their types", timedelta(seconds=20))

        assert not Judge().work()

        assert DeviceType.objects.get().marks_after == 0

    def test_writes_nothing_while_nothing_is_wanted(self) -> None:
        make_config(make_type())

        with CaptureQueriesContext(connection) as statements:
            assert Judge().work()

        assert all(statement["sql"].startswith("SELECT") for statement in statements)
