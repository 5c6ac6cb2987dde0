"""A configuration of which there is an earlier version."""

from devices.models import DeviceConfig

MAC = "aa-bb-cc-dd-ee-ff"
CONFIGS, ASSETS = "/admin/devices/deviceconfig/", "/admin/assets/asset/"
CONTENT = '{"deviceName": "Lamp",\r\n "level": 1.0}'


def save_config_twice() -> DeviceConfig:
    DeviceConfig.objects.put(MAC, '{"deviceName": "Before"}')
    return DeviceConfig.objects.put(MAC, CONTENT)
