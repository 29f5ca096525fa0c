"""Where the parts of the application are found in it."""

from aiohttp import web

from orchestrator.files import Cache
from orchestrator.jobs import JobTable
from orchestrator.settings import Settings
from orchestrator.torchserve import ModelWatch
from orchestrator.worker import Worker

SETTINGS = web.AppKey("settings", Settings)
CACHE = web.AppKey("cache", Cache)
TABLE = web.AppKey("table", JobTable)
WATCH = web.AppKey("watch", ModelWatch)
WORKER = web.AppKey("worker", Worker)
