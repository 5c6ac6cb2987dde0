"""What each kind of change makes of one configuration, and whether that may be: asked when it is planned, looked at,
and written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db.models import OuterRef

from devices.changes.models import Change, ItemState, Kind
from devices.limits import MAY_ADD, MAY_CHANGE
from devices.models import DeviceConfig, DeviceType
from devices.patching import Patch, merge_patch
from devices.writing import KEEP
from iotsupport.characters import fold


class LeftAlone(Exception):
    """A configuration stays as somebody else made it. The message is a sentence."""


class Proposal(NamedTuple):
    """What a configuration would have."""

    content: str
    type: Any = KEEP
    """A type; None to take it away."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What would become of one configuration."""

    mac_address: str
    state: ItemState
    config: DeviceConfig | None
    """As it is now; None where there is none."""
    reason: str = ""
    proposal: Proposal | None = None
    """Where it may be written: what would be."""

    @property
    def before(self) -> str | None:
        return None if self.config is None else self.config.content_sha256

    @property
    def before_type(self) -> int | None:
        return None if self.config is None else self.config.type_id

    def is_as(self, before: str | None, before_type: int | None) -> bool:
        """Whether nobody changed what this is about since a plan saw that."""
        sets_type = self.proposal is not None and self.proposal.type is not KEEP
        return self.before == before and (self.before_type == before_type or not sets_type)


class _Work(ABC):
    """A kind of change, ready to be done to some configurations."""

    def __init__(self, change: Change, given: Mapping[str, Any]) -> None:
        self.change = change

    @abstractmethod
    def propose(self, config: DeviceConfig | None, given: Any) -> Proposal:
        """Return what a configuration would have. Raises ``ValidationError`` and :class:`LeftAlone`."""


class _Patching(_Work):
    def __init__(self, change: Change, given: Mapping[str, Any]) -> None:
        super().__init__(change, given)
        self._patch = Patch(change.patch)

    def propose(self, config: DeviceConfig | None, given: Any) -> Proposal:
        return Proposal(merge_patch(_required(config).content, self._patch))


class _SettingType(_Work):
    def propose(self, config: DeviceConfig | None, given: Any) -> Proposal:
        if self.change.type is None and self.change.type_name:
            raise ValidationError(f"The type “{self.change.type_name}” was deleted.")
        return Proposal(_required(config).content, self.change.type)


class _Announcing(_Work):
    def propose(self, config: DeviceConfig | None, given: Any) -> Proposal:
        return Proposal(_required(config).content)


class _Importing(_Work):
    """Gives each the text that is given as ``content``, and the type whose name is given as ``type``, if any is."""

    def __init__(self, change: Change, given: Mapping[str, Any]) -> None:
        super().__init__(change, given)
        self._types = {type_.folded: type_ for type_ in DeviceType.objects.all()}

    def propose(self, config: DeviceConfig | None, given: Any) -> Proposal:
        content, name = str(given["content"]), given.get("type")
        if "type" not in given or name is None:
            return Proposal(content, None if "type" in given else KEEP)
        if fold(name) not in self._types:
            raise ValidationError(f"There is no type “{name}”. Add it first, or leave the type out.")
        return Proposal(content, self._types[fold(name)])


class _Undoing(_Work):
    """Gives back text and type of the version before the one that the undone change wrote, which is what is given."""

    def __init__(self, change: Change, given: Mapping[str, Any]) -> None:
        super().__init__(change, given)
        # By the address: what was deleted and added again is one device.
        before = DeviceConfig.history.filter(
            mac_address=OuterRef("mac_address"), history_id__lt=OuterRef("history_id")
        ).order_by("-history_id")
        written = DeviceConfig.history.filter(pk__in=given.values()).annotate(earlier=before.values("pk")[:1])
        self._written = {version.pk: version for version in written}
        self._earlier = DeviceConfig.history.in_bulk({version.earlier for version in self._written.values()} - {None})
        self._types = DeviceType.objects.in_bulk()

    def propose(self, config: DeviceConfig | None, given: Any) -> Proposal:
        written = self._written.get(given)
        earlier = written and self._earlier.get(written.earlier)
        if config is None:
            raise LeftAlone("It was deleted since.")
        if written is not None and config.content != written.content:
            raise LeftAlone(f"{_somebody(config)} changed it since.")
        if written is not None and written.history_type == "+":
            raise LeftAlone("It was new then. Delete it, if it is to go.")
        if written is None or earlier is None:
            raise LeftAlone("Its earlier text is not kept any more.")
        if written.type_id == earlier.type_id:
            return Proposal(earlier.content)
        if config.type_id != written.type_id:
            raise LeftAlone(f"{_somebody(config)} gave it another type since.")
        if earlier.type_id not in {None, *self._types}:
            raise LeftAlone("Its earlier type was deleted since.")
        return Proposal(earlier.content, self._types.get(earlier.type_id))


WORK: dict[str, type[_Work]] = {
    Kind.PATCH: _Patching,
    Kind.TYPE: _SettingType,
    Kind.ANNOUNCE: _Announcing,
    Kind.IMPORT: _Importing,
    Kind.UNDO: _Undoing,
}


def judge(change: Change, given: Mapping[str, Any], user: User, *, checks: bool = True) -> list[Judged]:
    """Say what would become of configurations now, if this user changed them.

    ``given`` has their MAC addresses, and what the kind needs to know of each. Without ``checks``, whoever writes them
    finds out whether the texts can be read, and fit their types.
    """
    work = WORK[change.kind](change, given)
    rows = DeviceConfig.objects.select_related("updated_by", "type").filter(mac_address__in=given)
    configs = {config.mac_address: config for config in rows}
    return [
        _judge_one(work, mac_address, configs.get(mac_address), about, user, checks)
        for mac_address, about in given.items()
    ]


def _judge_one(
    work: _Work, mac_address: str, config: DeviceConfig | None, given: Any, user: User, checks: bool
) -> Judged:
    try:
        proposal = work.propose(config, given)
        _check_permission(user, config)
        if config is not None and _is_same(config, proposal):
            is_announced = work.change.kind == Kind.ANNOUNCE
            state = ItemState.PLANNED if is_announced else ItemState.UNCHANGED
            return Judged(mac_address, state, config, "", proposal)
        if checks:
            _check(mac_address, config, proposal)
    except LeftAlone as error:
        return Judged(mac_address, ItemState.SKIPPED, config, str(error))
    except ValidationError as error:
        return Judged(mac_address, ItemState.REFUSED, config, " ".join(error.messages))
    return Judged(mac_address, ItemState.PLANNED, config, "", proposal)


def _is_same(config: DeviceConfig, proposal: Proposal) -> bool:
    return proposal.content == config.content and proposal.type in (KEEP, config.type)


def _check(mac_address: str, config: DeviceConfig | None, proposal: Proposal) -> None:
    """Raise ``ValidationError`` as a save would. The row that was read is left as it is."""
    kept = config.type if config is not None else None
    type_ = kept if proposal.type is KEEP else proposal.type
    DeviceConfig(mac_address=mac_address, content=proposal.content, type=type_).clean()


def may_work(user: User | None, change: Change) -> bool:
    """Whether a user may do at least something of what a change is about."""
    needed = [MAY_CHANGE, MAY_ADD] if change.kind == Kind.IMPORT else [MAY_CHANGE]
    return user is not None and any(user.has_perm(permission) for permission in needed)


def _check_permission(user: User, config: DeviceConfig | None) -> None:
    permission, verb = (MAY_ADD, "add") if config is None else (MAY_CHANGE, "change")
    if not user.has_perm(permission):
        raise ValidationError(f"{user} may not {verb} configurations. Ask an administrator for it.")


def _required(config: DeviceConfig | None) -> DeviceConfig:
    if config is None:
        raise ValidationError("No configuration has this MAC address.")
    return config


def changed_meanwhile(config: DeviceConfig | None) -> str:
    """Say why a configuration is left alone whose text is another than the plan saw."""
    return "It was deleted meanwhile." if config is None else f"{_somebody(config)} changed it meanwhile."


def _somebody(config: DeviceConfig) -> str:
    return str(config.updated_by) if config.updated_by else "Somebody"
