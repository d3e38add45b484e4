{{- define "wsgiapp-operator.name" -}}
{{- .Values.nameOverride | default .Chart.Name -}}
{{- end -}}

{{/* Name of everything in the release: the release's own name where that says what it is. */}}
{{- define "wsgiapp-operator.fullname" -}}
{{- $name := include "wsgiapp-operator.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "wsgiapp-operator.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace -}}
{{- end -}}

{{/* Where the Leases are: the same for all installations, so that they see each other. */}}
{{- define "wsgiapp-operator.leaseNamespace" -}}
{{- .Values.leaderElection.namespace | default (include "wsgiapp-operator.namespace" .) -}}
{{- end -}}

{{/* Labels that never change: a Deployment's selector is immutable. */}}
{{- define "wsgiapp-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "wsgiapp-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of the pod of `helm test`, by which it is no pod of the operator and reaches one. */}}
{{- define "wsgiapp-operator.testLabels" -}}
app.kubernetes.io/name: {{ include "wsgiapp-operator.name" . }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "wsgiapp-operator.labels" -}}
{{ include "wsgiapp-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* `annotations:` of an object, or nothing; call with (list $ own more…), each a map or nil. */}}
{{- define "wsgiapp-operator.annotations" -}}
{{- $root := first . -}}
{{- $all := dict -}}
{{- range rest . }}{{ $all = merge $all (. | default dict) }}{{ end -}}
{{- with merge $all $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "wsgiapp-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "wsgiapp-operator.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* Reference of one `{repository, tag, digest}`; call with (list $ .Values.image). */}}
{{- define "wsgiapp-operator.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $registry := $root.Values.global.imageRegistry -}}
{{- $name := ternary $image.repository (printf "%s/%s" (trimSuffix "/" $registry) $image.repository) (empty $registry) -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name ($image.tag | default $root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
