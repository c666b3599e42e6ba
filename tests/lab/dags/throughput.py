"""Many tasks that do nothing, for measuring what a task itself costs."""

from airflow.sdk import dag, task


@dag(schedule=None, tags=["test"], is_paused_upon_creation=False, max_active_tasks=1000)
def throughput() -> None:
    @task(retries=0)
    def nothing(number: int) -> None:
        pass

    nothing.expand(number=list(range(200)))


throughput()
