delete from volatility where brand = %(brand)s and week >= %(since)s;
insert into volatility
select {{ by | join(', ') }}, week, changes, volatility from (
  select {{ by | join(', ') }}, week,
    count(change_1_week) over quarter as changes,
    stddev_samp(change_1_week) over quarter as volatility
  from reference_metrics where brand = %(brand)s and week >= %(since)s::date - 12 * 7
  window quarter as (partition by {{ by | join(', ') }} order by week range between '84 days' preceding and current row)
) quarters where week >= %(since)s;
