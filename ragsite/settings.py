"""Django's settings, from ``ragsite.core.config``. Nothing else reads the environment."""

import os
import sys
from datetime import timedelta
from typing import Any

from csp.constants import NONCE, NONE, SELF
from psycopg.conninfo import conninfo_to_dict
from redis.backoff import NoBackoff
from redis.retry import Retry

from ragsite.core.config import CHECKOUT, ConfigError, config
from ragsite.core.observability import configure_logging

try:
    CONFIG = config()
except ConfigError as error:
    raise SystemExit(str(error)) from None

configure_logging(
    level=CONFIG.log_level,
    json_lines=CONFIG.log_format == "json" or (CONFIG.log_format == "auto" and CONFIG.environment != "dev"),
)

BASE_DIR = CHECKOUT
SECRET_KEY = CONFIG.secret_key
DEBUG = CONFIG.debug
ENVIRONMENT = CONFIG.environment
ALLOWED_HOSTS = CONFIG.hosts
CSRF_TRUSTED_ORIGINS = CONFIG.trusted_origins
ROOT_URLCONF = "ragsite.urls"
ASGI_APPLICATION = "ragsite.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "tenants",
    "knowledge",
    "feedback",
    "ragsite",
    "unfold.apps.BasicAppConfig",
    "unfold.contrib.filters",
    "ragsite.admin_app.RagsiteAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_celery_beat",
    "django_prometheus",
    "csp",
    "django_htmx",
    "template_partials",
]

MIDDLEWARE = [
    "ragsite.middleware.RequestIdMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "ragsite.static_files.StaticFilesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "ragsite.middleware.TooLargeMiddleware",
    "tenants.middleware.ScopeMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "csp.context_processors.nonce",
            ],
        },
    }
]

# Database: one database, three roles (docs/decisions/0001-three-walls.md).
# ``asgi.py`` switches the pool on: it is the one process in which threads come and go with every request.
POOLED = os.environ.get("RAGSITE_DATABASE_POOL") == "1"


def _database(url: str, *, engine: str, connections: int, timeout_seconds: float | None) -> dict[str, Any]:
    parts: dict[str, Any] = dict(conninfo_to_dict(url)) if url else {}
    options: dict[str, Any] = {
        key: value
        for key, value in parts.items()
        if key not in ("user", "password", "host", "port", "dbname")
    }
    options.setdefault("connect_timeout", 5)
    options.setdefault("application_name", "ragsite")
    if timeout_seconds:
        options["options"] = f"-c statement_timeout={int(timeout_seconds * 1000)} -c lock_timeout=4000"
    if POOLED:
        options["pool"] = {"min_size": 1, "max_size": connections, "timeout": 5, "max_idle": 300}
    return {
        "ENGINE": engine,
        "NAME": parts.get("dbname", "ragsite"),
        "USER": parts.get("user", ""),
        "PASSWORD": parts.get("password", ""),
        "HOST": parts.get("host", ""),
        "PORT": parts.get("port", ""),
        "OPTIONS": options,
        "DISABLE_SERVER_SIDE_CURSORS": True,  # a cursor would outlive the transaction that holds the scope
    }


DATABASES = {
    "default": _database(
        CONFIG.app_database_url,
        engine="tenants.postgresql",
        connections=CONFIG.database_connections,
        timeout_seconds=CONFIG.database_timeout_seconds,
    )
    | {"TEST": {"MIRROR": "owner"}},
    "platform": _database(
        CONFIG.platform_database_url,
        engine="tenants.postgresql.platform",
        connections=4,
        timeout_seconds=CONFIG.database_timeout_seconds,
    )
    | {"TEST": {"MIRROR": "owner"}},
    "owner": _database(
        CONFIG.database_url, engine="tenants.postgresql.platform", connections=2, timeout_seconds=None
    )
    | {"TEST": {"DEPENDENCIES": []}},
}
DATABASES["owner"]["OPTIONS"].pop("pool", None)
DATABASE_ROUTERS = ["tenants.router.ScopeRouter"]

CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": CONFIG.redis_url or "redis://127.0.0.1:6379/0",
        "KEY_PREFIX": "rag",
        "OPTIONS": {
            "REDIS_CLIENT_CLASS": "ragsite.core.redis.GuardedRedis",
            # Once more, for a connection that the server has closed meanwhile; the default waits for seconds.
            "CONNECTION_POOL_KWARGS": {"retry": Retry(NoBackoff(), 1)},
            "SOCKET_CONNECT_TIMEOUT": CONFIG.redis_timeout_seconds,
            "SOCKET_TIMEOUT": CONFIG.redis_timeout_seconds,
        },
    }
}

# People
AUTH_USER_MODEL = "tenants.User"
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
PASSWORD_RESET_TIMEOUT = 3600
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "ask"
LOGOUT_REDIRECT_URL = "sign-in"
SESSION_COOKIE_NAME = "ragsite_session"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 14 * 24 * 3600
CSRF_COOKIE_NAME = "ragsite_csrf"
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "ragsite.views.csrf_failure"

# Transport
_TLS = ENVIRONMENT == "prod"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = CONFIG.is_reached_by_tls
SECURE_SSL_REDIRECT = _TLS and not CONFIG.behind_tls_proxy
SECURE_REDIRECT_EXEMPT = [r"^livez$", r"^readyz$", r"^health$", r"^metrics$"]
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if _TLS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = _TLS
SECURE_HSTS_PRELOAD = _TLS
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if CONFIG.behind_tls_proxy:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF, NONCE],
        "style-src": [SELF, NONCE],
        "img-src": [SELF],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
        "manifest-src": [SELF],
    }
}

# Files
STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = WHITENOISE_AUTOREFRESH = ENVIRONMENT == "dev"  # an edited file shows at once
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if ENVIRONMENT == "dev"
        else "ragsite.static_files.HashedFiles"
    },
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 2**20
DATA_UPLOAD_MAX_NUMBER_FIELDS = 10_000  # thirty roles with two hundred tags each
FILE_UPLOAD_MAX_MEMORY_SIZE = 2 * 2**20

# REST
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["tenants.authentication.PrincipalAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["tenants.access.IsMember"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_PAGINATION_CLASS": "tenants.rest.CursorPages",
    "DEFAULT_SCHEMA_CLASS": "tenants.schema.Schema",
    "EXCEPTION_HANDLER": "tenants.rest.handle_exception",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SIMPLE_JWT = {
    "ALGORITHM": "HS256",
    "AUDIENCE": "ragsite-api",
    "ISSUER": "ragsite",
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=CONFIG.access_token_minutes),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=CONFIG.refresh_token_days),
    "UPDATE_LAST_LOGIN": False,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "ragsite",
    "DESCRIPTION": "Answers engineers' questions from their own team's documents, with citations.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_ADD_EXPLICIT_BLANK_NULL_CHOICE": False,
    # Where fields of one name have different choices, or one set of choices goes by several names.
    "ENUM_NAME_OVERRIDES": {
        "AbilityEnum": "tenants.models.Ability",
        "DocumentStatusEnum": "knowledge.models.Document.Status",
        "DocumentRequestStatusEnum": "feedback.models.DocumentRequest.Status",
        "JobKindEnum": "knowledge.models.Job.Kind",
        "MemberStatusEnum": "tenants.models.Membership.Status",
        "SourceKindEnum": "knowledge.models.Source.Kind",
    },
}

# Celery (names with the prefix CELERY_ are read by ragsite/celery.py)
CELERY_BROKER_URL = CONFIG.broker_url or "redis://127.0.0.1:6379/0"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_TIME_LIMIT = 3600
CELERY_TASK_SOFT_TIME_LIMIT = 3500
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = (
    {"visibility_timeout": 4000, "unacked_restore_limit": 100}  # above the hard time limit
    if "redis" in CELERY_BROKER_URL
    else {}
)
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE = {
    "recover jobs": {"task": "knowledge.recover_jobs", "schedule": 5.0, "options": {"expires": 10}},
    "send callbacks": {
        "task": "knowledge.send_due_callbacks",
        "schedule": 10.0,
        "options": {"expires": 10},
    },
    "build spaces": {"task": "knowledge.build_spaces", "schedule": 60.0, "options": {"expires": 60}},
    "adopt": {"task": "knowledge.adopt", "schedule": 60.0, "options": {"expires": 60}},
    "note index days": {"task": "knowledge.note_index_days", "schedule": 3600.0},
    "apply retention": {"task": "knowledge.apply_retention", "schedule": 3600.0},
    "erase deleted documents": {"task": "knowledge.erase_deleted_documents", "schedule": 24 * 3600.0},
    "clear away": {"task": "knowledge.clear_away", "schedule": 24 * 3600.0},
}
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"

# Language and time
LANGUAGE_CODE = "en"
USE_I18N = True
USE_TZ = True
TIME_ZONE = "UTC"
LOCALE_PATHS = [BASE_DIR / "templates" / "locale"]

LOGGING_CONFIG = None  # configured above
SILENCED_SYSTEM_CHECKS: list[str] = []
TESTING = "pytest" in sys.modules

# E-mail: the console in dev, a server by RAGSITE_EMAIL_URL, else none, and the pages say so.
SITE_URL = CONFIG.public_url
_mail_server = CONFIG.mail_server
MAIL_IS_SET_UP = _mail_server is not None or ENVIRONMENT == "dev"
DEFAULT_FROM_EMAIL = CONFIG.email_from or "ragsite <ragsite@localhost>"
EMAIL_TIMEOUT = 10
if _mail_server is not None:
    EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    EMAIL_HOST, EMAIL_PORT = _mail_server.host, _mail_server.port
    EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _mail_server.username, _mail_server.password
    EMAIL_USE_TLS, EMAIL_USE_SSL = _mail_server.tls == "starttls", _mail_server.tls == "implicit"
else:
    EMAIL_BACKEND = f"django.core.mail.backends.{'console' if MAIL_IS_SET_UP else 'dummy'}.EmailBackend"

# The admin's look. Who sees what in it is decided in tenants/admin_base.py.
UNFOLD = {
    "SITE_TITLE": "ragsite",
    "SITE_HEADER": "ragsite",
    "SITE_SYMBOL": "quick_reference_all",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "feedback.admin.navigation.favicon"}],
    "SITE_URL": "feedback.admin.navigation.site_url",
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_BACK_BUTTON": True,
    "BORDER_RADIUS": "6px",
    "STYLES": ["feedback.admin.navigation.stylesheet"],
    "DASHBOARD_CALLBACK": "feedback.admin.home.add_figures",
    "SIDEBAR": {"show_search": True, "navigation": "feedback.admin.navigation.sidebar"},
    "COLORS": {
        "primary": {
            "50": "oklch(97.5% .012 213)",
            "100": "oklch(94% .026 213)",
            "200": "oklch(88% .046 213)",
            "300": "oklch(80% .07 213)",
            "400": "oklch(74% .09 213)",
            "500": "oklch(66% .1 213)",
            "600": "oklch(47% .085 215)",
            "700": "oklch(41% .075 216)",
            "800": "oklch(36% .065 217)",
            "900": "oklch(31% .055 218)",
            "950": "oklch(24% .04 219)",
        }
    },
}
