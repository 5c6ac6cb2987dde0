"""Types in the admin: their pages, and what a configuration's page and list say of them."""

from __future__ import annotations

import pytest
from django.test import Client

from devices.models import DeviceConfig, DeviceType, SchemaDraft
from devices.tests.types import DOES_NOT, FITS, MAC, SCHEMA, STRICTER, WHY, form_of, make_config, make_type, url_of
from devices.types import marking

pytestmark = pytest.mark.usefixtures("transactional_db")

TYPES = "/admin/devices/devicetype/"
CONFIGS = "/admin/devices/deviceconfig/"


class TestAType:
    def test_is_added_as_it_is_typed(self, signed_in: Client) -> None:
        form = {"name": "Gate", "description": "At the road", "schema": SCHEMA, "starting_content": FITS}

        response = signed_in.post(f"{TYPES}add/", form, follow=True)

        assert "was added successfully" in response.text
        row = DeviceType.objects.get()
        assert (row.name, row.schema, row.starting_content) == ("Gate", SCHEMA, FITS)
        assert row.history.count() == 1

    def test_is_refused_with_the_place_of_a_mistake(self, signed_in: Client) -> None:
        form = {"name": "gate", "schema": '{\n "minimum": "3"\n}', "starting_content": ""}

        response = signed_in.post(f"{TYPES}add/", form)

        assert "Line 2, column 13: minimum must be a number; is &quot;3&quot;." in response.text
        assert "<mark>&quot;3&quot;</mark>" in response.text  # the line is shown
        assert not DeviceType.objects.exists()

    def test_is_not_overwritten_unseen(self, signed_in: Client) -> None:
        device_type = make_type()
        form = form_of(device_type, description="mine")
        DeviceType.objects.filter(pk=device_type.pk).update(description="theirs")

        response = signed_in.post(url_of(device_type), form)

        assert "changed this type while you were editing" in response.text
        assert DeviceType.objects.get().description == "theirs"

    def test_that_all_configurations_fit_is_saved_at_once(self, signed_in: Client) -> None:
        device_type = make_type()
        make_config(device_type, '{"pin": 1}')

        response = signed_in.post(url_of(device_type), form_of(device_type, schema=STRICTER), follow=True)

        assert "was changed." in response.text
        assert DeviceType.objects.get().schema == STRICTER
        assert DeviceConfig.objects.get().fits is True
        assert not SchemaDraft.objects.exists()

    def test_that_some_would_not_fit_is_saved_when_that_was_seen(self, signed_in: Client) -> None:
        device_type = make_type()
        make_config(device_type)

        page = signed_in.post(url_of(device_type), form_of(device_type, schema=STRICTER), follow=True)

        assert "1 of 1 configurations would not fit this schema" in page.text
        assert "Line 1, column 9: pin must be one of 1, 2; is 4." in page.text
        assert DeviceType.objects.get().schema == SCHEMA
        path = page.redirect_chain[-1][0]

        again = signed_in.get(f"{url_of(device_type)}?draft={SchemaDraft.objects.get().pk}")
        assert again.context["adminform"].form.initial["schema"] == STRICTER  # to be edited further
        assert again.context["adminform"].form.initial["based_on"] == device_type.fingerprint
        done = signed_in.post(path, follow=True)

        assert "keep working, and are marked" in done.text
        assert DeviceType.objects.get().schema == STRICTER
        assert DeviceConfig.objects.get().fits is False

    def test_of_many_is_tried_behind_the_page(self, signed_in: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(marking, "FEW", 0)
        device_type = make_type()
        make_config(device_type)

        page = signed_in.post(url_of(device_type), form_of(device_type, schema=STRICTER), follow=True)

        assert "0 of 1 tried" in page.text
        assert 'http-equiv="refresh"' in page.text
        assert signed_in.post(page.redirect_chain[-1][0]).status_code == 200  # not before all are tried
        while marking.step():
            pass
        assert "Save, and mark 1" in signed_in.get(page.redirect_chain[-1][0]).text

    def test_that_somebody_else_changed_meanwhile_is_not_overwritten(self, signed_in: Client) -> None:
        device_type = make_type()
        make_config(device_type)
        page = signed_in.post(url_of(device_type), form_of(device_type, schema=STRICTER), follow=True)
        DeviceType.objects.update(description="theirs")

        response = signed_in.post(page.redirect_chain[-1][0], follow=True)

        assert "Nothing was saved" in response.text
        assert response.context["adminform"].form.initial["schema"] == STRICTER
        assert DeviceType.objects.get().schema == SCHEMA

    def test_that_configurations_have_is_not_deleted(self, signed_in: Client) -> None:
        device_type = make_type()
        make_config(device_type)

        for response in [
            signed_in.get(url_of(device_type).replace("change", "delete")),
            signed_in.post(TYPES, {"action": "delete_selected", "_selected_action": [device_type.pk]}),
            signed_in.post(url_of(device_type).replace("change", "delete"), {"post": "yes"}),
        ]:
            assert "1 configuration has the type “gate”" in response.text
        assert DeviceType.objects.exists()

    def test_is_deleted_and_brought_back(self, signed_in: Client) -> None:
        device_type = make_type(starting_content=FITS)

        page = signed_in.post(url_of(device_type).replace("change", "delete"), {"post": "yes"}, follow=True)
        assert "Undo" in page.text
        signed_in.post(f"{TYPES}undo/", {"rows": str(device_type.pk)})

        back = DeviceType.objects.get()
        assert (back.pk, back.name, back.folded, back.schema) == (device_type.pk, "gate", "gate", SCHEMA)

    def test_is_listed_with_its_devices(self, signed_in: Client) -> None:
        device_type = make_type()
        make_config(device_type)
        make_config(device_type, DOES_NOT, "aa-bb-cc-dd-ee-02")

        page = signed_in.get(TYPES).text

        assert f'{CONFIGS}?type={device_type.pk}">2</a>' in page
        assert f'{CONFIGS}?type={device_type.pk}&amp;fits=no" class="state behind">1</a>' in page


class TestAConfiguration:
    def test_is_refused_with_all_that_does_not_fit(self, signed_in: Client) -> None:
        config = make_config(make_type(schema='{"properties": {"pin": {"const": 1}, "a": {"const": 1}}}'), "{}")
        form = {"type": config.type_id, "content": '{"pin": 2,\n "a": 2}', "based_on": config.etag}

        response = signed_in.post(url_of(config), form)

        assert "Line 1, column 9: pin must be 1; is 2." in response.text
        assert "Line 2, column 7: a must be 1; is 2." in response.text
        assert 'type="checkbox" name="although_it_does_not_fit"' in response.text
        response = signed_in.post(url_of(config), {**form, "although_it_does_not_fit": "on"}, follow=True)
        assert "was changed successfully" in response.text
        assert DeviceConfig.objects.get().fits is False

    def test_says_on_its_page_that_it_does_not_fit(self, signed_in: Client) -> None:
        config = make_config(make_type(), DOES_NOT)

        page = signed_in.get(url_of(config)).text

        assert "does not fit" in page
        assert 'type="checkbox" name="although_it_does_not_fit"' in page

    def test_begins_with_the_content_of_its_type(self, signed_in: Client) -> None:
        device_type = make_type(starting_content=FITS)

        plain = signed_in.get(f"{CONFIGS}add/?mac_address={MAC}")
        chosen = signed_in.get(f"{CONFIGS}add/?mac_address={MAC}&type={device_type.pk}")

        assert f'href="?mac_address={MAC}&amp;type={device_type.pk}">gate</a>' in plain.text
        initial = chosen.context["adminform"].form.initial
        assert (initial["mac_address"], initial["content"], str(initial["type"])) == (MAC, FITS, str(device_type.pk))

    @pytest.mark.parametrize("accept", ["application/json", "text/html"])
    def test_is_checked_without_being_saved(self, signed_in: Client, accept: str) -> None:
        device_type = make_type()
        form = {"mac_address": MAC, "type": device_type.pk, "content": DOES_NOT, "_check": ""}

        response = signed_in.post(f"{CONFIGS}add/", form, headers={"Accept": accept})

        assert WHY in response.text
        fits = signed_in.post(f"{CONFIGS}add/", {**form, "content": FITS}, headers={"Accept": accept})
        assert "It fits the type" in fits.text
        assert not DeviceConfig.objects.exists()

    @pytest.mark.parametrize(
        ("query", "found"), [("type={pk}", {1, 2}), ("type=none", {3}), ("fits=no", {2}), ("type={pk}&fits=no", {2})]
    )
    def test_is_found_by_its_type_and_by_its_fit(self, signed_in: Client, query: str, found: set[int]) -> None:
        device_type = make_type()
        make_config(device_type)
        make_config(device_type, DOES_NOT, "aa-bb-cc-dd-ee-02")
        make_config(None, DOES_NOT, "aa-bb-cc-dd-ee-03")

        response = signed_in.get(f"{CONFIGS}?{query.format(pk=device_type.pk)}")

        assert {row.mac_address for row in response.context["cl"].result_list} == {
            f"aa-bb-cc-dd-ee-0{n}" for n in found
        }
        assert ("does not fit</span>" in response.text) is (2 in found)

    def test_shows_no_types_where_there_are_none(self, signed_in: Client) -> None:
        config = make_config(None)

        assert 'name="type"' not in signed_in.get(url_of(config)).text
        assert "No type" not in signed_in.get(CONFIGS).text


class TestItsVersions:
    def test_are_compared_and_restored(self, signed_in: Client) -> None:
        device_type = make_type()
        make_config(device_type)
        device_type.schema = STRICTER
        device_type.save()

        page = signed_in.get(f"{TYPES}{device_type.pk}/history/", follow=True)
        assert "<mark>, 4</mark>" in page.text
        ask = signed_in.get(f"{TYPES}versions/gate/1/restore/")
        based_on = ask.context["form"].initial["based_on"]
        signed_in.post(f"{TYPES}versions/gate/1/restore/", {"based_on": based_on, "reason": ""})

        assert DeviceType.objects.get().schema == SCHEMA
        assert DeviceType.history.first().history_change_reason == "Restored from version 1"

    def test_of_a_configuration_that_do_not_fit_are_not_restored(self, signed_in: Client) -> None:
        config = make_config(None, DOES_NOT)
        config.content, config.type = FITS, make_type()
        config.save()

        page = signed_in.get(f"{CONFIGS}versions/{MAC}/1/restore/")

        assert WHY in page.text
        based_on = page.context["form"].initial["based_on"]
        page = signed_in.post(f"{CONFIGS}versions/{MAC}/1/restore/", {"based_on": based_on, "reason": ""})
        assert "Nothing was saved" in page.text
        assert DeviceConfig.objects.get().content == FITS
