"""Where each path of the example shop leads."""

from django.urls import path

from shop import views

urlpatterns = [
    path("", views.index),
    path("echo", views.echo),
    path("slow", views.slow),
    path("healthz", views.healthz),
]
