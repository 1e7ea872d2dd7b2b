"""A FastMCP server whose tools search at a server of ours, in its HTTP shape, and tools that answer in other shapes or fail.

    server.py --port PORT --search URL [--layer SEED]

Written for tests: whoever asks it observes what is observed at URL.
"""

import argparse
import json
import urllib.request

from fastmcp import FastMCP
from fastmcp.exceptions import ToolError

arguments = argparse.ArgumentParser()
arguments.add_argument("--port", type=int, required=True)
arguments.add_argument("--search", required=True)
arguments.add_argument("--layer", type=int, default=0)
settings = arguments.parse_args()

mcp = FastMCP("search of the tests")


def ask(query: dict, hits: int) -> list[dict]:
    request = urllib.request.Request(
        f"{settings.search}/layers/{settings.layer}/search",
        data=json.dumps({"queries": [query], "hits": hits}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as reply:
        told = json.load(reply)["results"][0]
    if "failure" in told:
        raise ToolError(f"{told['failure']}: {told['message']}")
    return told["hits"]


@mcp.tool
def search(query: str, num_results: int = 10) -> dict:
    """Searches for a text."""
    hits = [{"snippet" if name == "content" else name: value for name, value in hit.items()} for hit in ask({"text": query}, num_results)]
    return {"organic": hits}


@mcp.tool
def image_search(image: str, max_results: int = 10) -> list[dict]:
    """Searches for what a picture, PNG or JPEG in base64, shows."""
    return ask({"picture": image}, max_results)


@mcp.tool
def listed(query: str) -> list[dict]:
    return [{"title": query, "link": "https://x"}, {"title": "second"}]


@mcp.tool
def plain(query: str) -> str:
    return f"all that is known of {query}"


@mcp.tool
def nothing(query: str) -> list[dict]:
    return []


@mcp.tool
def busy(query: str) -> str:
    raise ToolError("rate limit exceeded, come again")


@mcp.tool
def broken(query: str) -> str:
    raise ValueError("boom")


mcp.run(transport="http", host="127.0.0.1", port=settings.port, show_banner=False, log_level="CRITICAL")
