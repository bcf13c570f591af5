"""The routes of the page."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from starlette.routing import compile_path

from bacalhau_p2p.errors import ApiError, BacalhauError, InvalidJob
from bacalhau_p2p.model.api_errors import headers_of, status_of
from bacalhau_p2p.model.execution import Job
from bacalhau_p2p.model.logs import LogQuery
from bacalhau_p2p.node import Node
from bacalhau_p2p.page import content_view, login
from bacalhau_p2p.page.activity import Activity
from bacalhau_p2p.page.job_views import job_detail, job_list
from bacalhau_p2p.page.live import LiveViews
from bacalhau_p2p.page.node_views import node_detail, node_list, overview
from bacalhau_p2p.page.output import output_events, output_text
from bacalhau_p2p.page.settings_view import settings_values
from bacalhau_p2p.page.site import FOLDER, HEADERS, Site
from bacalhau_p2p.page.submission import faults_by_field, job_of_form
from bacalhau_p2p.page.view import Strings, Values, View
from bacalhau_p2p.runtime.token_guesses import TokenGuesses

MAX_FORM = 512 * 1024
"""Bytes of a form that is sent."""
MAX_FIELDS = 100
STATIC = {
    "style.css": "text/css",
    "htmx.min.js": "text/javascript",
    "sse.min.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "LICENSE-htmx.txt": "text/plain",
}


class Page:
    """The page of one node. Its charts begin when it is made, and need `run`."""

    def __init__(self, node: Node, guesses: TokenGuesses) -> None:
        self._node = node
        self.guesses = guesses
        settings = node.settings
        self._site = Site(node.peer_id, requester=settings.requester, locked=bool(settings.api_token))
        self._files = {name: (FOLDER / "static" / name).read_bytes() for name in STATIC}
        self._activity = Activity(node)
        self._live = LiveViews(self._activity.changes)
        self._views = [View("/", "overview.html", self._overview, "/"), *self._other_views()]

    async def run(self) -> None:
        """Until cancelled."""
        await self._activity.run()

    def routes(self) -> APIRouter:
        routes = APIRouter(include_in_schema=False)
        for view in self._views:
            routes.get(view.path)(partial(self._show, view))
        routes.get("/live/{path:path}")(self._watch)
        routes.get("/static/{name}")(self._static)
        routes.get("/settings")(self._settings)
        self._add_content_routes(routes)
        self._add_job_routes(routes)
        self._add_login_routes(routes)
        return routes

    def _other_views(self) -> list[View]:
        views = [
            View("/nodes", "nodes.html", node_list, "/nodes"),
            View("/nodes/{peer}", "node.html", node_detail, "/nodes"),
        ]
        if self._node.settings.requester:
            views += [
                View("/jobs", "jobs.html", job_list, "/jobs"),
                View("/jobs/{job_id}", "job.html", job_detail, "/jobs"),
            ]
        return views

    async def _overview(self, node: Node, names: Strings, query: Strings) -> Values:
        return await overview(node, self._activity)

    # --- views ------------------------------------------------------------------------------

    async def _show(self, view: View, request: Request) -> Response:
        query = dict(request.query_params)
        try:
            values = await view.values(self._node, request.path_params, query)
        except BacalhauError as error:
            return self._error(error)
        path = "/live" + request.url.path + (f"?{urlencode(query)}" if query else "")
        return self._site.page(view.template, {**values, "here": view.section, "live": path})

    async def _watch(self, path: str, request: Request) -> Response:
        """Server-sent events with the live part of the view at `path`."""
        query, url = dict(request.query_params), f"/{path}"
        for view in self._views:
            match = compile_path(view.path)[0].match(url)
            if match is not None:
                break
        else:
            raise ApiError("no such view", status=404)
        if self._live.full:
            raise ApiError("too many browsers are watching", status=503)
        names = match.groupdict()
        await view.values(self._node, names, query)  # raises if there is no such job or node

        async def draw() -> str:
            return self._site.live(view.template, await view.values(self._node, names, query))

        async def events() -> AsyncGenerator[bytes, None]:
            watched = self._live.watch(f"{url}?{urlencode(query)}", draw)
            with suppress(BacalhauError):  # the job was deleted, or the node forgotten
                async with aclosing(watched):
                    async for event in watched:
                        yield event

        return StreamingResponse(
            self._live.counted(events()), media_type="text/event-stream", headers=HEADERS
        )

    async def _static(self, name: str) -> Response:
        if name not in STATIC:
            raise ApiError("no such file", status=404)
        headers = {"Cache-Control": "max-age=3600", "X-Content-Type-Options": "nosniff"}
        return Response(self._files[name], media_type=STATIC[name], headers=headers)

    async def _settings(self) -> Response:
        return self._site.page("settings.html", {**settings_values(self._node.settings), "here": "/settings"})

    def _error(self, error: BacalhauError) -> Response:
        status = status_of(error)
        title = "Not found" if status == 404 else "Not possible"
        values = {"title": title, "message": str(error), "here": ""}
        response = self._site.page("error.html", values, status=status)
        response.headers.update(headers_of(error))
        return response

    # --- content ----------------------------------------------------------------------------

    def _add_content_routes(self, routes: APIRouter) -> None:
        @routes.get("/content")
        async def content() -> Response:
            return await self._content("")

        @routes.post("/content/collect")
        async def collect() -> Response:
            return await self._content(await content_view.collect(self._node))

        @routes.post("/content/unpin")
        async def unpin(request: Request) -> Response:
            form = await _form(request)
            try:
                notice = await content_view.unpin(self._node, form.get("cid", ""), form.get("owner", ""))
            except BacalhauError as error:
                return self._error(error)
            return await self._content(notice)

    async def _content(self, notice: str) -> Response:
        values = await content_view.content_values(self._node, notice)
        return self._site.page("content.html", {**values, "here": "/content"})

    # --- jobs -------------------------------------------------------------------------------

    def _add_job_routes(self, routes: APIRouter) -> None:
        if not self._node.settings.requester:
            return

        @routes.get("/jobs/{job_id}/output")
        async def output(job_id: str) -> Response:
            if self._live.full:
                raise ApiError("too many browsers are watching", status=503)
            pieces = self._node.logs(self._node.requester.resolve(job_id), LogQuery(follow=True))
            events = self._live.counted(output_events(pieces))
            return StreamingResponse(events, media_type="text/event-stream", headers=HEADERS)

        @routes.get("/jobs/{job_id}/output.txt")
        async def output_as_text(job_id: str) -> Response:
            try:
                pieces = self._node.logs(self._node.requester.resolve(job_id), LogQuery(follow=True))
                first = await anext(pieces, None)  # an error has its page as long as nothing was sent
            except BacalhauError as error:
                return self._error(error)
            headers = {**HEADERS, "Content-Security-Policy": "sandbox"}
            text = output_text(first, pieces)
            return StreamingResponse(text, media_type="text/plain; charset=utf-8", headers=headers)

        @routes.get("/submit")
        async def form() -> Response:
            return self._submission("", {}, {}, [])

        @routes.post("/submit/{kind}")
        async def submit(kind: str, request: Request) -> Response:
            if kind not in ("docker", "wasm", "file"):
                raise ApiError("no such form", status=404)
            form = await _form(request)
            try:
                job = await self._node.submit(job_of_form(kind, form))
            except InvalidJob as error:
                return self._submission(kind, form, *faults_by_field(list(error.faults), kind), status=400)
            except BacalhauError as error:
                return self._error(error)
            return RedirectResponse(f"/jobs/{job.id}", status_code=303)

        @routes.post("/jobs/{job_id}/stop")
        async def stop(job_id: str) -> Response:
            return await self._with_job(job_id, self._stop)

        @routes.post("/jobs/{job_id}/rerun")
        async def rerun(job_id: str) -> Response:
            return await self._with_job(job_id, self._rerun)

    async def _with_job(self, job_id: str, act: Callable[[Job], Awaitable[str]]) -> Response:
        requester = self._node.requester
        try:
            shown = await act(requester.job(requester.resolve(job_id)))
        except BacalhauError as error:
            return self._error(error)
        return RedirectResponse(f"/jobs/{shown}", status_code=303)

    async def _stop(self, job: Job) -> str:
        await self._node.requester.cancel(job.id, "stopped on the page of the node")
        return job.id

    async def _rerun(self, job: Job) -> str:
        return (await self._node.submit(job.spec)).id

    def _submission(
        self, kind: str, form: Strings, faults: Strings, others: list[Any], *, status: int = 200
    ) -> Response:
        names = ("image", "command", "module", "input", "count", "name", "cpu", "memory", "verify", "text")
        values = {
            "kind_of": kind,
            "given": {name: form.get(name, "") for name in names},
            "faults": faults,
            "others": others,
            "here": "/submit",
        }
        return self._site.page("submit.html", values, status=status)

    # --- logging in -------------------------------------------------------------------------

    def _add_login_routes(self, routes: APIRouter) -> None:
        token = self._node.settings.api_token

        @routes.get("/login")
        async def form(next: str = "/") -> Response:  # noqa: A002 - the name of the parameter
            return self._site.page("login.html", {"wrong": False, "next": next, "here": "/login"})

        @routes.post("/login")
        async def log_in(request: Request) -> Response:
            form = await _form(request)
            target, given = login.safe_target(form.get("next", "/")), form.get("token", "").strip()
            try:
                knows = bool(token) and self.guesses.is_right(request.client, given, token, what="token")
            except ApiError as too_many_guesses:
                return self._error(too_many_guesses)
            if not knows:
                values = {"wrong": True, "next": target, "here": "/login"}
                return self._site.page("login.html", values, status=403)
            response = RedirectResponse(target, status_code=303)
            login.log_in(response, token)
            return response

        @routes.post("/logout")
        async def log_out() -> Response:
            response = RedirectResponse("/login", status_code=303)
            login.log_out(response)
            return response


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form. Raises ApiError when it is too large."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            raise ApiError(f"the form is too large: more than {MAX_FORM} bytes", status=413)
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except (ValueError, UnicodeDecodeError) as error:
        raise ApiError(f"not a form: {error}", status=400) from error
