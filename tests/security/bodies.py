"""A good body for every route that takes one, as its caller would send it."""

from __future__ import annotations

from typing import Any

from app.core.clock import utc_now
from tests.fixtures.accounts import PASSWORD, Person
from tests.security.things import MODEL

_HARDWARE = {
    "gpu_info": "RTX 4090", "cpu_name": "EPYC", "cpu_core": "8", "cpu_frequency": "3000",
    "total_memory": "64", "total_swap": "0", "ram": "64", "os_name": "linux",
    "os_version": "6",
}  # fmt: skip
_DEVICE = {"index": 0, "name": "RTX 4090", "vendor_id": 4318, "device_id": 9860, "usage": 5}
_CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Why?"}]}


def good_bodies(
    caller: Person, *, node_token: str = "wk_none", client_id: str = "f" * 32
) -> dict[str, dict[str, Any]]:
    """By endpoint. A new route with a body needs its line here."""
    names = {"username": "fresh", "email": "fresh@example.org"}
    client = {"user": {"username": caller.username, "email": caller.email}, "phone_no": "1"}
    gpu = {**_HARDWARE, "user": caller.id}
    question = {"client": caller.id, "question_text": "Why?", "desired_model": MODEL}
    node = {"user_id": str(caller.id), "client_id": client_id, "name": "n"}
    return {
        "torbiz.register_post": {**names, "password": PASSWORD, "confirm_password": PASSWORD},
        "torbiz.login_post": {"email": caller.email, "password": PASSWORD},
        "torbiz.sign_in_with_google_post": {"token": "a.b.c"},
        "torbiz.logout_post": {"device_token": "none"},
        "torbiz.ask_for_reset_post": {"email": "nobody@example.org"},
        "torbiz.reset_password_post": {"new_password": PASSWORD},
        "torbiz.create_client_post": {"user": names},
        "torbiz.replace_client_put": client,
        "torbiz.change_client_patch": client,
        "torbiz.create_gpu_post": gpu,
        "torbiz.replace_gpu_put": gpu,
        "torbiz.change_gpu_patch": gpu,
        "torbiz.create_inference_post": question,
        "torbiz.replace_inference_put": question,
        "torbiz.change_inference_patch": {"answer_text": "mine"},
        "torbiz.stream_inference_post": question,
        "torbiz.create_research_post": {"client": caller.id, "question_text": "Why?"},
        "torbiz.replace_research_put": {"client": caller.id, "question_text": "Why?"},
        "torbiz.change_research_patch": {"question_text": "Why?"},
        "torbiz.regenerate_research_post": {},
        "torbiz.register_model_post": {**gpu, "model_name": "org/model"},
        "torbiz.model_heartbeat_post": {"node_token": node_token, "devices": [_DEVICE]},
        "torbiz.deregister_model_delete": {"node_token": node_token},
        "fabric.insert_client_post": {**node, "client_status": "online", "os_type": "linux"},
        "fabric.edit_client_info_post": {**node, "client_status": "maintenance"},
        "fabric.insert_model_post": {
            "name": "m", "version": "1", "version_code": 1, "engine_type": 6,
            "download_url": "https://models.example/m.gguf", "expected_size": 1,
        },
        "fabric.upsert_apk_post": {
            "package_name": "org.example", "version_name": "1", "version_code": 1,
            "download_url": "https://apks.example/a.apk", "sha256": "0" * 64,
        },
        "aitip.register_post": {**names, "password": PASSWORD},
        "aitip.login_post": {"email": caller.email, "password": PASSWORD},
        "aitip.refresh_post": {"refresh_token": caller.refresh_token},
        "aitip.create_key_post": {"name": "k"},
        "aitip.change_dataset_put": {
            "name": "n", "description": "d", "used_in_research": False
        },
        "dualquery.register_post": {
            "email": names["email"], "password": PASSWORD, "name": "Fresh"
        },
        "dualquery.login_post": {"email": caller.email, "password": PASSWORD},
        "dualquery.sign_in_with_google_post": {"token": "a.b.c"},
        "openai.create_chat_completion_post": _CHAT,
        "openai.create_completion_post": {"model": MODEL, "prompt": "Why?"},
        "agent.enrol_post": {
            "name": "n", "client_id": client_id, "os_type": "linux", "agent_version": "1",
            "inventory": {"cpu_name": "EPYC", "devices": [{"index": 0, "name": "RTX 4090"}]},
        },
        "agent.put_inventory_put": {"inventory": {"cpu_name": "EPYC", "devices": []}},
        "agent.heartbeat_post": {"sequence": 1, "cpu_usage": 5, "devices": [_DEVICE]},
        "agent.put_replicas_put": {
            "replicas": [{"model_name": MODEL, "engine": "tgi", "state": "starting"}]
        },
        "agent.post_downloads_post": {
            "downloads": [{"model_name": MODEL, "status": "Pending"}]
        },
        "agent.post_logs_post": {
            "source": "agent",
            "lines": [{"at": utc_now().isoformat(), "level": "info", "message": "up"}],
        },
        "agent.goodbye_post": {},
    }  # fmt: skip


def form_fields(caller: Person) -> dict[str, dict[str, str]]:
    """What the dashboard's forms send, by endpoint. A new form needs its line here."""
    return {
        "dashboard.sign_in": {"login": "nobody", "password": "wrong"},
        "dashboard.sign_in_with_google": {"state": "x", "id_token": "a.b.c", "error": ""},
        "dashboard.sign_up": {
            "username": "fresh", "email": "fresh@example.org", "password": "a good password"
        },
        "dashboard.sign_out": {},
        "dashboard.forgot_password": {"email": "nobody@example.org"},
        "dashboard.reset_password": {"password": "a good password"},
        "dashboard.change_profile": {
            "username": caller.username, "email": caller.email, "name": "n"
        },
        "dashboard.change_password": {
            "current_password": "wrong", "new_password": "a good password"
        },
        "dashboard.end_session": {},
        "dashboard.sign_out_everywhere": {},
        "dashboard.create_key": {"name": "k"},
        "dashboard.revoke_key": {},
        "dashboard.create_enrolment": {"hours": "24", "uses": "1"},
        "dashboard.change_node": {"name": "stolen", "status": "maintenance"},
        "dashboard.remove_node": {},
        "dashboard.cancel_run": {},
        "dashboard.approve_provider": {},
        "dashboard.add_device_type": {"name": "Acme 9000", "tflops": "9000"},
        "dashboard.mark_node": {"valid_status": "invalid"},
        "dashboard.upload_apk": {},
        "dashboard.set_apk_active": {"active": "1"},
        "dashboard.save_model": {"name": "m", "version": "1", "version_code": "1"},
        "dashboard.set_model_active": {"active": "1"},
        "dashboard.send_model": {"client_id": "f" * 32},
        "dashboard.recall_model": {"client_id": "f" * 32, "model_name": "m"},
        "dashboard.ask_research": {"question_text": "Why?"},
        "dashboard.delete_research": {},
        "dashboard.regenerate_research": {},
        "dashboard.stream_playground": {},
        "dashboard.upload_data": {},
        "dashboard.change_dataset": {"name": "n", "description": "d"},
        "dashboard.use_dataset": {"used": "1"},
        "dashboard.delete_data": {},
    }  # fmt: skip
