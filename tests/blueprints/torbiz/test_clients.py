"""torbiz's client list: who sees and changes which account."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import ClassVar
from urllib.parse import urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from redis import Redis

from app.core.queue import INVITATION_TASK
from tests.fixtures.accounts import MakePerson, Person

NAMES = {"username": "owner", "email": "owner@example.org"}


def picture(size: tuple[int, int] = (900, 300), kind: str = "PNG") -> io.BytesIO:
    out = io.BytesIO()
    Image.new("RGB", size, "teal").save(out, kind)
    out.seek(0)
    return out


def url(person: Person) -> str:
    return f"/client/list/{person.id}/"


class TestList:
    def test_shows_a_user_itself_alone(
        self, client: FlaskClient, owner: Person, other: Person
    ) -> None:
        answer = client.get("/client/list/", headers=owner.headers())
        assert [one["user"]["id"] for one in answer.get_json()] == [owner.id]
        assert answer.headers["X-Total-Count"] == "1"

    def test_shows_an_admin_everybody_page_by_page(
        self, client: FlaskClient, admin: Person, owner: Person, other: Person
    ) -> None:
        ids = [admin.id, owner.id, other.id]
        answer = client.get("/client/list/", headers=admin.headers())
        assert [one["user"]["id"] for one in answer.get_json()] == ids
        page = client.get("/client/list/?page=2&page_size=2", headers=admin.headers())
        assert [one["user"]["id"] for one in page.get_json()] == ids[2:]
        assert page.headers["X-Total-Count"] == "3"

    def test_the_token_is_a_mask_for_its_owner_and_nothing_for_admins(
        self, client: FlaskClient, owner: Person, admin: Person
    ) -> None:
        own = client.get(url(owner), headers=owner.headers("token")).get_json()
        assert own["user_token"].startswith(owner.token[:4])
        assert own["user_token"].endswith(owner.token[-4:])
        assert owner.token not in own["user_token"]
        seen = client.get(url(owner), headers=admin.headers()).get_json()
        assert seen["user_token"] is None

    @pytest.mark.parametrize("page", ["0", "x", "-1"])
    def test_a_bad_page_is_refused(self, client: FlaskClient, admin: Person, page: str) -> None:
        answer = client.get(f"/client/list/?page={page}", headers=admin.headers())
        assert answer.status_code == 400


class TestOne:
    @pytest.mark.parametrize("method", ["get", "put", "patch", "delete"])
    def test_somebody_elses_account_is_not_found(
        self, client: FlaskClient, owner: Person, other: Person, method: str
    ) -> None:
        body = {"user": {"username": "mine", "email": "mine@example.org"}}
        answer = getattr(client, method)(url(owner), headers=other.headers(), json=body)
        assert answer.status_code == 404
        assert client.get(url(owner), headers=owner.headers()).status_code == 200

    @pytest.mark.parametrize("path", ["999999", "99999999999999999999", "none"])
    def test_an_unknown_id_is_not_found(
        self, client: FlaskClient, admin: Person, path: str
    ) -> None:
        answer = client.get(f"/client/list/{path}/", headers=admin.headers())
        assert answer.status_code == 404
        assert "detail" in answer.get_json()


class TestChange:
    def test_patch_changes_what_is_sent_and_nothing_else(
        self, client: FlaskClient, owner: Person
    ) -> None:
        client.patch(url(owner), headers=owner.headers(), json={"phone_no": "0123456789"})
        body = client.patch(
            url(owner), headers=owner.headers(), json={"user": {"username": "ada"}}
        ).get_json()
        assert body["user"] == {"id": owner.id, "username": "ada", "email": owner.email}
        assert body["phone_no"] == "0123456789"

    def test_put_sets_everything_that_is_writable(
        self, client: FlaskClient, owner: Person
    ) -> None:
        full = {"user": NAMES, "phone_no": "1", "user_image": 7, "terms_accepted": True}
        body = client.put(url(owner), headers=owner.headers(), json=full).get_json()
        assert (body["phone_no"], body["user_image"], body["terms_accepted"]) == ("1", 7, True)
        body = client.put(url(owner), headers=owner.headers(), json={"user": NAMES}).get_json()
        assert (body["phone_no"], body["user_image"], body["terms_accepted"]) == (None, 0, None)

    def test_the_rest_of_the_object_is_read_only(
        self, client: FlaskClient, owner: Person
    ) -> None:
        before = client.get(url(owner), headers=owner.headers()).get_json()
        body = client.patch(
            url(owner),
            headers=owner.headers(),
            json={
                "role": "admin",
                "is_gpu_provider_approved": True,
                "ip": "1.2.3.4",
                "user_token": "mine",
                "provider_registration_date": "2000-01-01T00:00:00Z",
            },
        ).get_json()
        assert body == before

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"phone_no": "0123456789012"}, "phone_no"),
            ({"user_image": 32768}, "user_image"),
            ({"user_image": -1}, "user_image"),
            ({"user": {"email": "nowhere"}}, "user"),
        ],
    )
    def test_values_out_of_bounds_are_refused(
        self, client: FlaskClient, owner: Person, change: dict[str, object], field: str
    ) -> None:
        answer = client.patch(url(owner), headers=owner.headers(), json=change)
        assert answer.status_code == 400
        assert list(answer.get_json()) == [field]

    def test_a_name_of_somebody_else_is_taken(
        self, client: FlaskClient, owner: Person, other: Person
    ) -> None:
        answer = client.patch(
            url(owner), headers=owner.headers(), json={"user": {"username": other.username}}
        )
        assert answer.status_code == 400
        assert list(answer.get_json()) == ["username"]

    def test_nobody_becomes_somebody_else(
        self, client: FlaskClient, owner: Person, other: Person
    ) -> None:
        answer = client.patch(
            url(owner), headers=owner.headers(), json={"user": {"id": other.id}}
        )
        assert answer.status_code == 403

    def test_an_admin_changes_anybody(
        self, client: FlaskClient, owner: Person, admin: Person
    ) -> None:
        answer = client.patch(url(owner), headers=admin.headers(), json={"phone_no": "5"})
        assert answer.get_json()["phone_no"] == "5"


class TestPicture:
    def upload(self, client: FlaskClient, owner: Person, file: io.BytesIO) -> object:
        return client.patch(
            url(owner),
            headers=owner.headers(),
            data={"profile_image": (file, "../../etc/x.html"), "user.username": "ada"},
        )

    def test_is_made_small_and_shown_by_a_signed_link(
        self, client: FlaskClient, owner: Person
    ) -> None:
        body = self.upload(client, owner, picture()).get_json()  # type: ignore[attr-defined]
        assert body["user"]["username"] == "ada"
        link = urlsplit(body["profile_image_url"])
        assert link.scheme == "http"
        shown = client.get(f"{link.path}?{link.query}", buffered=True)
        assert shown.status_code == 200
        assert shown.content_type == "image/webp"
        assert shown.headers["X-Content-Type-Options"] == "nosniff"
        assert shown.headers["Content-Disposition"].startswith("attachment")
        assert "sandbox" in shown.headers["Content-Security-Policy"]
        assert Image.open(io.BytesIO(shown.data)).size == (512, 171)

    def test_the_old_one_goes_when_a_new_one_comes(
        self, client: FlaskClient, owner: Person
    ) -> None:
        links = [
            urlsplit(self.upload(client, owner, picture()).get_json()["profile_image_url"])  # type: ignore[attr-defined]
            for _ in range(2)
        ]
        statuses = [
            client.get(f"{link.path}?{link.query}", buffered=True).status_code for link in links
        ]
        assert statuses == [404, 200]

    @pytest.mark.parametrize(
        "content",
        [b"<svg/>", b"\x89PNG\r\n\x1a\nbroken", b""],
        ids=["no picture", "a broken one", "nothing"],
    )
    def test_what_is_no_picture_is_refused(
        self, client: FlaskClient, owner: Person, content: bytes
    ) -> None:
        answer = self.upload(client, owner, io.BytesIO(content))
        assert answer.status_code == 400  # type: ignore[attr-defined]
        assert list(answer.get_json()) == ["profile_image"]  # type: ignore[attr-defined]

    def test_too_many_bytes_are_413(self, client: FlaskClient, owner: Person) -> None:
        head = (
            b'--b\r\nContent-Disposition: form-data; name="profile_image"; filename="x"\r\n\r\n'
        )
        answer = client.patch(
            url(owner),
            headers=owner.headers(),
            data=head + b"\0" * (6 * 2**20) + b"\r\n--b--\r\n",
            content_type="multipart/form-data; boundary=b",
        )
        assert answer.status_code == 413

    def test_too_many_pixels_are_refused(self, client: FlaskClient, owner: Person) -> None:
        answer = self.upload(client, owner, picture((8000, 6000)))
        assert answer.status_code == 400  # type: ignore[attr-defined]

    @pytest.mark.parametrize("change", ["signature", "expires", "name"])
    def test_a_link_that_was_tampered_with_opens_nothing(
        self, client: FlaskClient, owner: Person, change: str
    ) -> None:
        body = self.upload(client, owner, picture()).get_json()  # type: ignore[attr-defined]
        link = urlsplit(body["profile_image_url"])
        path, query = link.path, link.query
        if change == "signature":
            query = query[:-2] + "xx"
        elif change == "expires":
            query = query.replace("expires=", "expires=9")
        else:
            path = "/files/avatars/" + "0" * 32
        assert client.get(f"{path}?{query}").status_code == 403


class TestDelete:
    def test_ends_everything_that_opens_the_account(
        self, client: FlaskClient, owner: Person
    ) -> None:
        carriers = ["basic", "token", "bearer-key", "bearer-jwt", "x-api-key"]
        for carrier in carriers:
            answer = client.get("/client/list/", headers=owner.headers(carrier))
            assert answer.status_code == 200
        assert client.delete(url(owner), headers=owner.headers()).status_code == 204
        for carrier in carriers:
            answer = client.get("/client/list/", headers=owner.headers(carrier))
            assert answer.status_code == 401, carrier

    def test_frees_the_names_and_leaves_nothing_personal(
        self, client: FlaskClient, owner: Person, admin: Person, make_person: MakePerson
    ) -> None:
        client.delete(url(owner), headers=admin.headers())
        assert client.get(url(owner), headers=admin.headers()).status_code == 404
        assert make_person("owner").id != owner.id

    def test_the_last_admin_stays(self, client: FlaskClient, admin: Person) -> None:
        assert client.delete(url(admin), headers=admin.headers()).status_code == 409


class TestCreate:
    BODY: ClassVar = {"user": {"username": "new", "email": "new@example.org"}, "phone_no": "1"}

    def test_an_admin_makes_an_account_that_is_invited_by_mail(
        self, client: FlaskClient, admin: Person, app: Flask, redis_client: Redis
    ) -> None:
        answer = client.post("/client/list/", headers=admin.headers(), json=self.BODY)
        body = answer.get_json()
        assert answer.status_code == 201
        assert body["user"]["email"] == "new@example.org"
        assert body["user_token"] is None
        jobs = redis_client.lrange("rq:queue:default", 0, -1)
        described = [redis_client.hget(f"rq:job:{job.decode()}", "description") for job in jobs]
        assert described == [INVITATION_TASK.encode()]

    def test_is_for_admins(self, client: FlaskClient, owner: Person) -> None:
        answer = client.post("/client/list/", headers=owner.headers(), json=self.BODY)
        assert answer.status_code == 403

    def test_works_when_registration_is_closed(
        self, make_app: Callable[..., Flask], admin: Person
    ) -> None:
        closed = make_app(open_signup=False).test_client()
        answer = closed.post("/client/list/", headers=admin.headers(), json=self.BODY)
        assert answer.status_code == 201
