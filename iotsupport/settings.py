"""Settings of IoT Support. The environment is read here and nowhere else.

A bare checkout runs with no variable set. Whether a value makes sense is a system check: see ``iotsupport.checks``.
"""

import os.path
from importlib.util import find_spec
from pathlib import Path

from csp.constants import SELF

from iotsupport.database.backends import configured
from iotsupport.environment import HOST_RULE, Environment, is_allowed_host, is_header, is_issuer, is_origin, is_proxy
from iotsupport.monitoring import logs

BASE_DIR = Path(__file__).resolve().parent.parent

env = Environment()
env.read_env(BASE_DIR / ".env")

# Variables whose value cannot be right, with a sentence each, and what is wrong with ``.env``; ``iotsupport.checks``
# reports them.
ENVIRONMENT_PROBLEMS = env.problems
DOTENV_TROUBLES = env.dotenv_troubles
# Names of those that are set.
GIVEN_VARIABLES = env.given

# --- Where things are kept ---------------------------------------------------------------------------------------

DATA_DIR = env.folder("DATA_DIR", BASE_DIR / "data")

# Mirror of the device configurations. A web server may serve it directly.
ESP32_CONFIGS_DIR = env.folder("ESP32_CONFIGS_DIR", DATA_DIR / "configs")

# Mirror of the assets. A web server may serve it directly.
ASSETS_DIR = env.folder("ASSETS_DIR", DATA_DIR / "assets")

# The bytes of every version of every asset, under their SHA-256. Not rebuilt from anything.
BLOBS_DIR = env.make_folder("DATA_DIR", DATA_DIR / "blobs")

# --- Security ----------------------------------------------------------------------------------------------------

SECRET_KEY = env.secret("SECRET_KEY", DATA_DIR / "secret_key")
DEBUG = env.switch("DEBUG", default=False)
DEFAULT_EXCEPTION_REPORTER_FILTER = "iotsupport.debug.ReporterFilter"
ALLOWED_HOSTS = env.items(
    "ALLOWED_HOSTS",
    ["localhost", "127.0.0.1", "[::1]"],
    is_allowed_host,
    f"a host name or address, without scheme or port ({HOST_RULE})",
)
CSRF_TRUSTED_ORIGINS = env.items("CSRF_TRUSTED_ORIGINS", [], is_origin, "like https://iot.example.com")

CSRF_FAILURE_VIEW = "iotsupport.editing.unsaved.csrf_failure"

# Whether people and scripts come over HTTPS alone; devices need plain HTTP (iotsupport.https).
HTTPS_ONLY = env.switch("HTTPS_ONLY", default=False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS_ONLY
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if HTTPS_ONLY else 0

SILENCED_SYSTEM_CHECKS = [
    "security.W005",  # SECURE_HSTS_INCLUDE_SUBDOMAINS: names below this one are others' to decide about
    "security.W008",  # SECURE_SSL_REDIRECT: sends devices on, too; iotsupport.https does so with people and scripts
    "security.W021",  # SECURE_HSTS_PRELOAD: it lists a whole domain in browsers, for years
]
if not HTTPS_ONLY:
    # iotsupport.W060 says so where people come over HTTPS, and W026 where they come without.
    SILENCED_SYSTEM_CHECKS += ["security.W004", "security.W010", "security.W016"]

SESSION_ENGINE = "iotsupport.accounts.sessions"
# A session ends so long after its last use.
SESSION_HOURS = env.number("SESSION_HOURS", default=336, least=1, most=24 * 365)
SESSION_COOKIE_AGE = SESSION_HOURS * 3600

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF, "data:"],
        "worker-src": [SELF, "blob:"],  # the JSON editor marks mistakes while one types
        "object-src": ["'none'"],
        "base-uri": [SELF],
        "form-action": [SELF],
        "frame-ancestors": ["'none'"],
    }
}

# Devices sign in to download: a name, and one or two passwords, comma-separated. None: downloads are open.
DEVICE_USERNAME = env.str("DEVICE_USERNAME", default="")
DEVICE_PASSWORD = env.str("DEVICE_PASSWORD", default="")
# What Prometheus says to read the metrics. None: everybody may.
METRICS_TOKEN = env.str("METRICS_TOKEN", default="")

# By name and network together: by network alone, one guesser behind a proxy locks everybody out.
# iotsupport.accounts.signin has the rules.
AXES_HANDLER = "iotsupport.accounts.signin.SignInHandler"
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_CLIENT_IP_CALLABLE = "iotsupport.serving.clients.client_network"
AXES_USERNAME_CALLABLE = "iotsupport.serving.clients.username_of"
AXES_LOCKOUT_CALLABLE = "iotsupport.accounts.signin.refuse"
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = 1  # hour
AXES_DISABLE_ACCESS_LOG = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_VERBOSE = False
AXES_ENABLE_ADMIN = False

# The first administrator, made by ``make run``; without a password one is made up.
DJANGO_SUPERUSER_USERNAME = env.str("DJANGO_SUPERUSER_USERNAME", default="") or "admin"
DJANGO_SUPERUSER_PASSWORD = env.str("DJANGO_SUPERUSER_PASSWORD", default="")

# Single sign-on: docs/sign-in.md. Proxies are believed by the address that is connected (iotsupport.serving.clients).
TRUSTED_PROXIES = env.items("TRUSTED_PROXIES", [], is_proxy, "an address, or a network such as 10.0.0.0/24")
REMOTE_USER_HEADER = env.text("REMOTE_USER_HEADER", is_header, "a header's name, such as X-Remote-User (no _)")
REMOTE_GROUPS_HEADER = env.text("REMOTE_GROUPS_HEADER", is_header, "a header's name, such as X-Remote-Groups (no _)")
OIDC_ISSUER = env.url("OIDC_ISSUER", is_issuer, "an https:// URL without ? and # (http:// on this machine alone)")
OIDC_CLIENT_ID, OIDC_CLIENT_SECRET = env.str("OIDC_CLIENT_ID", default=""), env.str("OIDC_CLIENT_SECRET", default="")
# Whoever has it, by either way, is an administrator.
OIDC_ADMIN_GROUP = env.str("OIDC_ADMIN_GROUP", default="").strip()

AUTHENTICATION_BACKENDS = [  # the first two take no password: ahead of those that count failures
    *(["iotsupport.accounts.remote_user.RemoteUserBackend"] if REMOTE_USER_HEADER else []),
    *(["iotsupport.accounts.oidc.ProviderBackend"] if OIDC_ISSUER and OIDC_CLIENT_ID and OIDC_CLIENT_SECRET else []),
    *["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"],
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}Validator"}
    for name in ["UserAttributeSimilarity", "MinimumLength", "CommonPassword", "NumericPassword"]
]

# The page of the API's documentation, served from here, not from a foreign host. As an INSTALLED_APP, every command
# would import it and pydantic, which takes as long as everything else together.
NINJA_DIR = Path(find_spec("ninja").origin).parent  # type: ignore[union-attr, arg-type]

# --- The parts ---------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "iotsupport",  # ahead of django.contrib.admin: its templates and static files come first
    "iotsupport.site_config.SiteConfig",  # django.contrib.admin
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "axes",
    "csp",
    "django_ace",
    "django_prometheus",
    "simple_history",
    "devices",
    "assets",
    "notifications",  # after both: a file is in place before its message goes out
]

MIDDLEWARE = [
    "iotsupport.middleware.RequestIdMiddleware",  # first: whatever is logged of a request has its id
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "iotsupport.middleware.PublicUrlsMiddleware",
    "iotsupport.times.ShownTimeZoneMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "iotsupport.static_files.StaticFilesMiddleware",
    "iotsupport.middleware.ContentSecurityPolicyMiddleware",
    "iotsupport.accounts.sessions.SecureCookiesMiddleware",
    "iotsupport.accounts.sessions.SessionMiddleware",
    "iotsupport.middleware.HostMiddleware",
    "iotsupport.https.HttpsMiddleware",
    "iotsupport.middleware.DatabaseMiddleware",
    "iotsupport.middleware.UnfinishedUploadsMiddleware",
    "iotsupport.limits.BodyLimitsMiddleware",  # ahead of the check for CSRF, which reads forms
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "iotsupport.accounts.remote_user.RemoteUserMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "iotsupport.editing.origins.OriginMiddleware",
    "axes.middleware.AxesMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]

ROOT_URLCONF = "iotsupport.urls"
WSGI_APPLICATION = "iotsupport.wsgi.application"
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates", NINJA_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# No field tells the browser to cut what is pasted, and a help text is text.
FORM_RENDERER = "iotsupport.renderers.FormRenderer"

# --- Server: read by gunicorn.conf.py and ``make run`` -----------------------------------------------------------

HOST = env.host("HOST", default="127.0.0.1")
PORT = env.number("PORT", default=8000, least=0, most=65535)
WEB_CONCURRENCY = env.number("WEB_CONCURRENCY", default=2, least=1, most=512)
# Of each worker: they run the application, and make a thread when it is needed.
WORKER_THREADS = 32

# Where the workers of one server add up their metrics, never on the disk of DATA_DIR unless it is named; None where
# there is no place. gunicorn.conf.py makes it, and empties it.
METRICS_DIR = env.metrics_directory("METRICS_DIR", DATA_DIR)
PROMETHEUS_EXPORT_MIGRATIONS = False

# --- Database ----------------------------------------------------------------------------------------------------

# The threads of a process share these. With one of its own for each thread, four workers were refused some: of
# PostgreSQL's default of 100, all workers together take 80 at most (4 each, if they are more than 20).
POSTGRESQL_CONNECTIONS = min(WORKER_THREADS, max(4, 80 // WEB_CONCURRENCY))
DATABASES = {
    "default": configured(env.database("DATABASE_URL", default=DATA_DIR / "db.sqlite3"), POSTGRESQL_CONNECTIONS)
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Files -------------------------------------------------------------------------------------------------------

CONFIG_MAX_BYTES = env.number("CONFIG_MAX_BYTES", default=65536, least=2)
ASSET_MAX_BYTES = env.number("ASSET_MAX_BYTES", default=67108864, least=1)

STATIC_URL = "static/"
STATICFILES_DIRS = [NINJA_DIR / "static"]
STATICFILES_FINDERS = [
    "django.contrib.staticfiles.finders.FileSystemFinder",
    "iotsupport.static_files.AppFinder",
]
# An image has them collected beside the code, where nothing writes: deploy/Dockerfile.
BUILT_STATIC_ROOT = BASE_DIR / "static"
STATIC_ROOT = BUILT_STATIC_ROOT if BUILT_STATIC_ROOT.is_dir() else env.make_folder("DATA_DIR", DATA_DIR / "static")
# Before the first collectstatic, the files are found where they are installed.
WHITENOISE_USE_FINDERS = not os.path.isdir(STATIC_ROOT / "admin")

STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "iotsupport.static_files.StaticFiles"},
    "configs": {
        "BACKEND": "iotsupport.mirror.files.MirrorStorage",
        "OPTIONS": {"location": ESP32_CONFIGS_DIR, "label": "configurations"},
    },
    "assets": {
        "BACKEND": "iotsupport.mirror.files.MirrorStorage",
        "OPTIONS": {"location": ASSETS_DIR, "label": "assets"},
    },
    "blobs": {"BACKEND": "iotsupport.mirror.files.MirrorStorage", "OPTIONS": {"location": BLOBS_DIR, "label": "blobs"}},
}

# Uploads are assets, and only assets: written straight to where their bytes stay, hashed on the way.
FILE_UPLOAD_HANDLERS = ["devices.transfer.uploads.ZipUploadHandler", "assets.uploads.AssetUploadHandler"]
# Bodies of those who may send more than everybody: iotsupport.limits says who, and where. Forms send up to six
# bytes for one of a configuration; one that is too large shall still reach its form, which says so and shows it again.
FORM_MAX_BYTES = 16 * CONFIG_MAX_BYTES + 64 * 1024
# "Delete selected" sends a field for each row.
DATA_UPLOAD_MAX_NUMBER_FIELDS = 100_000
LIST_MAX_BYTES = 32 * DATA_UPLOAD_MAX_NUMBER_FIELDS
DATA_UPLOAD_MAX_MEMORY_SIZE = max(FORM_MAX_BYTES, LIST_MAX_BYTES)

# --- MQTT --------------------------------------------------------------------------------------------------------

# Broker, as mqtt://host:port or mqtts://host:port; empty turns notifications off.
MQTT_URL = env.str("MQTT_URL", default="").strip()
MQTT_USERNAME = env.str("MQTT_USERNAME", default="")
MQTT_PASSWORD = env.str("MQTT_PASSWORD", default="")
MQTT_CA_FILE = env.str("MQTT_CA_FILE", default="")
MQTT_CERT_FILE = env.str("MQTT_CERT_FILE", default="")
MQTT_KEY_FILE = env.str("MQTT_KEY_FILE", default="")

# Announcements a second, at most, of each process: a bulk change must not flood small devices.
MQTT_PUBLISH_RATE = env.number("MQTT_PUBLISH_RATE", default=200, least=1, most=100_000)

# --- Boards ------------------------------------------------------------------------------------------------------

# Hours without a sign of a board after which it is silent; 0: never.
SILENT_AFTER = env.number("SILENT_AFTER", default=24, least=0, most=24 * 365)

# Where nginx tells of downloads that it answers by itself.
CHECKINS_SOCKET = env.file("CHECKINS_SOCKET", DATA_DIR / "checkins.sock")

# --- Versions ----------------------------------------------------------------------------------------------------

# Days after which a version is forgotten, 0 for never; and how many of each configuration and asset stay whatever
# their age.
HISTORY_DAYS = env.number("HISTORY_DAYS", default=365, least=0, most=36_500)
HISTORY_KEEP = env.number("HISTORY_KEEP", default=10, least=1, most=1_000_000)

# --- Language, time, logging -------------------------------------------------------------------------------------

LANGUAGE_CODE = "en-us"
# Of the process: of what programs read, and of the log. The pages of people show times in the other one.
TIME_ZONE = "UTC"
SHOWN_TIME_ZONE = env.time_zone("TIME_ZONE", default="UTC")
USE_I18N = False
USE_TZ = True
FORMAT_MODULE_PATH = "iotsupport.formats"

# For people, or for programs.
LOG_FORMAT = env.choice("LOG_FORMAT", [logs.LINES, logs.JSON])
LOGGING = logs.configuration(LOG_FORMAT)
