-- {{ table }} of one brand, from one week on; a year of weeks before it is what changes are measured against.
delete from {{ table }} where brand = %(brand)s and week >= %(since)s;
insert into {{ table }}
with weekly as (
  select {{ by | join(', ') }}, week, count(*) as listings, percentile_cont(0.5) within group (order by price) as median
  from listings where brand = %(brand)s and week >= %(since)s::date - 52 * 7
  group by {{ by | join(', ') }}, week
{% if below %}
), parts as (
  select {{ by | join(', ') }}, week, count(*) as parts from {{ below }} where brand = %(brand)s group by {{ by | join(', ') }}, week
{% endif %}
), compared as (
  select weekly.*,
    avg(median) over (history range between '29 days' preceding and current row) as mean_30_days
{% for weeks in (1, 4, 13, 26, 52) %}
    , median / max(median) over (history range between '{{ 7 * weeks }} days' preceding and '{{ 7 * weeks }} days' preceding) - 1
        as change_{{ weeks }}_week{{ '' if weeks == 1 else 's' }}
{% endfor %}
  from weekly window history as (partition by {{ by | join(', ') }} order by week)
)
select {{ by | join(', ') }}, week, listings, {{ 'parts' if below else 'listings' }}, median, mean_30_days,
  change_1_week, change_4_weeks, change_13_weeks, change_26_weeks, change_52_weeks
from compared {{ 'join parts using (%s, week)' % (by | join(', ')) if below }} where week >= %(since)s;
