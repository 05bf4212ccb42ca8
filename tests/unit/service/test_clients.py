"""Who is connected to a small server of a daemon (service/connections.py)."""

from __future__ import annotations

import asyncio

from re6st.service.connections import Clients


def test_one_address_holds_but_its_share_of_a_small_server() -> None:
    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())

        clients = Clients(8, talk, share=3)
        server = await asyncio.start_server(clients.connected, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        idle = [await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0)) for _ in range(6)]
        async with asyncio.timeout(20):
            refused = 0
            for reader, _ in idle[3:]:
                try:
                    refused += await reader.read() == b""
                except ConnectionResetError:
                    refused += 1
            assert refused == 3
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.3", 0))
            writer.write(b"hello\n")
            assert await reader.readline() == b"hello\n"
        for _, each in [*idle, (reader, writer)]:
            each.close()
        server.close()
        await clients.end()

    asyncio.run(main())
