"""Makes chat.json: conversations as transformers renders them with templates of the kinds that models have.

    pip install transformers jinja2
    python make_chat.py
"""

import json
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

TURNS = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role here') }}{% endif %}
{% for message in messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Roles must take turns: ' ~ message['role']) }}
    {% endif %}
    {% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
    {{ '<turn>' + role + '\n' + message['content'] | trim + '<end>\n' }}
{% endfor %}
{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"""

MARKS = """{%- set ns = namespace(n=0) -%}
{%- for m in messages -%}
{%- if m.role == 'system' and loop.first %}<|s|>{{ m.content.strip() }}{% continue %}{% endif -%}
{%- set ns.n = ns.n + 1 -%}
<|{{ m.role }} {{ ns.n }}|>
{{ m['content'].split('---')[-1].lstrip() }}{{ eos_token if m.role == 'assistant' else '' }}
{% endfor %}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"""

METHODS = """{% macro head(m) -%}{{ m.get('role').upper() }}/{{ m.get('none', 'x') }}{%- endmacro %}
{% for m in messages if m.content is string and not m.content.startswith('#') %}
{{ head(m) }} {{ m.content.replace('a', 'A') | tojson }} {{ m.content | length }} {{ m.role.capitalize() }}
{% for key, value in m.items() %}{{ key }}={{ value.rstrip('!') }};{% endfor %}

{% else %}
nobody
{% endfor %}
{{ messages | map(attribute='role') | join(',') }} {{ tools is defined and tools is not none }}"""

TALKS = [
    [("user", " Hi! ")],
    [("user", "a <b> & 'c' \"d\""), ("assistant", "thought --- answer"), ("user", "naïve 日本\n\nyes")],
    [("system", " be kind "), ("user", "# hidden"), ("assistant", "ok!")],
    [],
]


def main():
    cases = []
    for name, template in (("turns", TURNS), ("marks", MARKS), ("methods", METHODS)):
        for talk in TALKS:
            for prompt in (True, False):
                messages = [{"role": role, "content": content} for role, content in talk]
                try:
                    text = render_jinja_template([messages], chat_template=template, add_generation_prompt=prompt,
                                                 bos_token="<bos>", eos_token="<eos>")[0][0]
                except Exception as error:
                    text, failure = None, str(error)
                else:
                    failure = None
                cases.append({"name": name, "messages": messages, "prompt": prompt, "text": text, "error": failure})
    out = {"templates": {"turns": TURNS, "marks": MARKS, "methods": METHODS}, "cases": cases}
    (Path(__file__).parent / "chat.json").write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n")


main()
