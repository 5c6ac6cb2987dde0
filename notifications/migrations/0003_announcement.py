"""Call the rows of the outbox announcements. The table keeps its name, so no row moves."""

from django.db import migrations

ACTIONS = ["add", "change", "delete", "view"]


def rename_permissions(apps, schema_editor):
    _rename(apps, schema_editor, "debt", "announcement")


def restore_permissions(apps, schema_editor):
    _rename(apps, schema_editor, "announcement", "debt")


def _rename(apps, schema_editor, old, new):
    """Whoever was granted a permission keeps it: Django 5.2 would make new ones, which nobody has.

    Django has renamed the content type before this, unless one of the new name was there already.
    """
    using = schema_editor.connection.alias
    content_types = apps.get_model("contenttypes", "ContentType").objects.using(using)
    permissions = apps.get_model("auth", "Permission").objects.using(using)
    ours = {each.model: each for each in content_types.filter(app_label="notifications", model__in=[old, new])}
    content_type = ours.get(new) or ours.get(old)  # none where nothing was ever migrated
    for action in ACTIONS:
        renamed = permissions.filter(content_type__in=ours.values(), codename=f"{action}_{new}").first()
        for permission in permissions.filter(content_type__in=ours.values(), codename=f"{action}_{old}"):
            if renamed is None:
                permission.codename, permission.content_type = f"{action}_{new}", content_type
                permission.save(using=using)
            else:
                renamed.group_set.add(*permission.group_set.all())
                renamed.user_set.add(*permission.user_set.all())
                permission.delete(using=using)


class Migration(migrations.Migration):
    dependencies = [
        ("notifications", "0002_names_of_assets"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [
        migrations.AlterModelTable("Debt", "notifications_debt"),
        migrations.RenameModel("Debt", "Announcement"),
        migrations.AlterModelOptions("Announcement", {}),
        migrations.RunPython(rename_permissions, restore_permissions),
    ]
