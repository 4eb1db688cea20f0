"""Run the shop: place orders, show what happens, and check that each is charged exactly once, packed and sent."""

import os
import signal
import sys
import time
from pathlib import Path

import psycopg2
import urllib3

from examples.shop import service
from examples.shop.app import place_order, transaction
from examples.shop.gateway import Gateway

SECONDS = 120


def make_tables() -> None:
    """Create the shop's tables and role, and fill up the stock."""
    connection = psycopg2.connect(os.environ["DATABASE_URL"])
    with connection, connection.cursor() as cursor:
        cursor.execute((Path(__file__).parent / "schema.sql").read_text())
    connection.close()


def place_orders() -> list[int]:
    """Place orders until the stock is sold; returns their ids."""
    placed = []
    try:
        while True:
            order_id, job_id = place_order("teapot", cents=1900)
            placed.append(order_id)
            print(f"  order {order_id}: job {job_id}")
    except psycopg2.errors.CheckViolation:
        print("  one more: sold out, so its row and its job are rolled back")
    return placed


def follow(placed: list[int]) -> dict[int, str]:
    """Print each order once its customer is notified; returns the receipts."""
    receipts: dict[int, str] = {}
    deadline = time.monotonic() + SECONDS
    while len(receipts) < len(placed) and time.monotonic() < deadline:
        time.sleep(0.1)
        with transaction() as cursor:
            query = "SELECT id, receipt, message FROM shop.orders WHERE message > '' AND id = ANY(%s) AND id <> ALL(%s)"
            cursor.execute(query, (placed, list(receipts)))
            for order_id, receipt, message in cursor:
                print(f"  order {order_id}: {receipt}, {message}")
                receipts[order_id] = receipt
    return receipts


def main() -> None:
    """Run it; the exit status is 1 if an order was not charged exactly once, packed and sent."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    sys.stdout.reconfigure(line_buffering=True)
    gateway = Gateway()
    with service.running(JOBSVC_HANDLERS="examples.shop.handlers", SHOP_GATEWAY_URL=gateway.url) as url:
        print(f"The shop runs. Console: {url}/ui/\n\n1. Orders: a row and its job are committed together")
        make_tables()
        placed = place_orders()
        print("\n2. The job of an order starts a workflow: charge (at most 5 in 1.25 s), pack, notify")
        receipts = follow(placed)
        jobs = urllib3.request("GET", f"{url}/jobs?type=ORDER_PLACED&limit=200").json()["jobs"]
    ordered = [job["payload"]["order_id"] for job in jobs if job["payload"]["order_id"] >= placed[0]]
    charges = [gateway.charges[f"order-{order_id}"] for order_id in placed]
    print(f"\n3. {len(placed)} orders, {len(ordered)} jobs for them, {sum(charges)} charges, {len(receipts)} parcels")
    if not (sorted(ordered) == placed == sorted(receipts) and set(charges) == {1}):
        sys.exit("Not every order was charged exactly once, packed and sent.")
    print("Each order was charged exactly once, packed and sent.")


if __name__ == "__main__":
    main()
