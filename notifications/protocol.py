"""Which version of MQTT to speak: 5, and 3.1.1 only to a broker that understands nothing else.

3.1.1 cannot say that an announcement was refused, so no broker that knows MQTT 5 may be spoken to in it. One that does
not know it should say so (MQTT 3.1.1, section 3.1.2.2); some end the connection or are silent instead, and so is one
that is about to end, hangs, or expects TLS.
"""

from __future__ import annotations

from paho.mqtt.enums import MQTTProtocolVersion

MQTT_5, MQTT_3 = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311

# So many connections of MQTT 5 in a row get no answer before one of 3.1.1 is tried.
UNANSWERED_BEFORE_OLD = 3


class ProtocolChoice:
    """Which version of MQTT the next connection speaks. A broker may be replaced between any two of them."""

    def __init__(self) -> None:
        self.current = MQTT_5
        """Of the connection that there is, or was tried last."""
        self.next = MQTT_5
        self.was_refused = False
        """Whether the broker has said that it does not know MQTT 5."""
        self._unanswered = 0  # connections of MQTT 5 in a row
        self._is_confirming = False  # 3.1.1 was answered: 5 is tried once more, and then 3.1.1 is right
        self._shuns_mqtt_5 = False  # which was confirmed

    def begin(self) -> MQTTProtocolVersion:
        """Begin a connection, and return its version."""
        self.current, self.next = self.next, MQTT_5
        if self.current == MQTT_5:
            self.was_refused = False
        return self.current

    def refused(self) -> None:
        """The broker does not know the version of this connection."""
        if self.current == MQTT_5:
            self.was_refused, self.next = True, MQTT_3

    def unanswered(self) -> None:
        """The broker ended this connection, or was silent, instead of answering."""
        if self.current != MQTT_5:
            self._is_confirming = False
            return
        self._unanswered += 1
        if self._shuns_mqtt_5 or self._is_confirming or self._unanswered % UNANSWERED_BEFORE_OLD == 0:
            self.next = MQTT_3

    def accepted(self) -> bool:
        """The broker accepted this connection. Return whether it may be used; if not, MQTT 5 is tried once more."""
        if self.current == MQTT_5:
            self._unanswered, self._is_confirming, self._shuns_mqtt_5 = 0, False, False
            return True
        if not (self.was_refused or self._shuns_mqtt_5 or self._is_confirming):
            self._is_confirming = True
            return False
        self._shuns_mqtt_5 = not self.was_refused
        self._is_confirming = False
        return True
