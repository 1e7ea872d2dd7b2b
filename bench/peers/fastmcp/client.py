"""FastMCP's own client at an MCP server of ours: what it is told, a line of JSON for each way in which it can be spoken to.

    client.py URL QUERY..
"""

import asyncio
import inspect
import json
import sys

from fastmcp import Client


async def asked(url: str, queries: list[str], options: dict) -> dict:
    async with Client(url, **options) as client:
        tools = await client.list_tools()
        found = await client.call_tool("search", {"queries": queries, "hits": 3})
        refused = await client.call_tool("search", {"wrong": 1}, raise_on_error=False)
        spoken = getattr(client, "protocol_version", None) or getattr(client.session, "protocol_version", None)
        if spoken is None and client.initialize_result is not None:
            spoken = client.initialize_result.protocolVersion
        return {
            "options": options,
            "revision": spoken,
            "tools": [tool.name for tool in tools],
            "found": found.structured_content,
            "refused": refused.content[0].text if refused.is_error else None,
        }


url, queries = sys.argv[1], sys.argv[2:]
ways = [{"mode": "auto"}, {"mode": "legacy"}, {"mode": "2026-07-28"}] if "mode" in inspect.signature(Client.__init__).parameters else [{}]
for options in ways:
    print(json.dumps(asyncio.run(asked(url, queries, options))), flush=True)
