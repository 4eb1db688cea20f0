"""The shop: an order and its job are committed in one transaction, or neither of them is."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2.extras import Json


@contextmanager
def transaction() -> Iterator[Any]:
    """Begin a transaction as the role `shop`: committed at the end of the block, rolled back if the block raises."""
    connection = psycopg2.connect(os.environ["DATABASE_URL"], options="-c role=shop")
    try:
        with connection, connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def place_order(product: str, cents: int) -> tuple[int, str]:
    """Store an order and its job; returns both ids. Raises CheckViolation if the product is sold out."""
    with transaction() as cursor:
        cursor.execute("INSERT INTO shop.orders (product, cents) VALUES (%s, %s) RETURNING id", (product, cents))
        [order_id] = cursor.fetchone()
        cursor.execute("SELECT jobsvc_enqueue('ORDER_PLACED', %s)", (Json({"order_id": order_id}),))
        [job_id] = cursor.fetchone()
        cursor.execute("UPDATE shop.products SET stock = stock - 1 WHERE name = %s", (product,))
    return order_id, job_id
