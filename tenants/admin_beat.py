"""The schedules of beat in our admin: the platform's, so for superusers who have chosen no tenant."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.models import Group
from django.http import HttpRequest
from django_celery_beat import admin as beat
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
)
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from tenants.admin_base import PlatformModelAdmin
from tenants.admin_lists import yes_or_no


class TaskSelect(UnfoldAdminSelectWidget, beat.TaskSelectWidget):
    """Beat's list of the tasks that exist, in unfold's look."""


class PeriodicTaskForm(beat.PeriodicTaskForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["task"].widget = UnfoldAdminTextInputWidget()
        self.fields["regtask"].widget = TaskSelect()


class PeriodicTaskAdmin(PlatformModelAdmin, beat.PeriodicTaskAdmin):
    form = PeriodicTaskForm
    change_form_template = None  # beat's own has an inline script
    date_hierarchy = None
    list_display = ("name", "enabled", "task", "interval", "crontab", "last_run_at", "total_run_count")
    list_filter = (yes_or_no("enabled"), yes_or_no("one_off"))
    sortable_by = ("name",)
    list_select_related = ("interval", "crontab", "solar", "clocked")
    ordering = ("name",)


class PlatformScheduleAdmin(PlatformModelAdmin):
    """A schedule that tasks share; deleting one deletes the tasks on it, so it is done at the tasks."""

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class CrontabScheduleAdmin(PlatformScheduleAdmin):
    list_display = ("__str__", "human_readable")
    fields = (
        "human_readable",
        "minute",
        "hour",
        "day_of_month",
        "month_of_year",
        "day_of_week",
        "timezone",
    )
    readonly_fields = ("human_readable",)


class IntervalScheduleAdmin(PlatformScheduleAdmin):
    list_display = ("__str__", "every", "period")


def register_schedules() -> None:
    """Replaces what others have registered: beat's schedules by ours, Django's groups, which mean nothing here, by none."""
    site = admin.site
    for model in (Group, PeriodicTask, CrontabSchedule, IntervalSchedule, SolarSchedule, ClockedSchedule):
        if site.is_registered(model):
            site.unregister(model)
    site.register(PeriodicTask, PeriodicTaskAdmin)
    site.register(CrontabSchedule, CrontabScheduleAdmin)
    site.register(IntervalSchedule, IntervalScheduleAdmin)
