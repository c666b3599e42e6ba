delete from growth where brand = %(brand)s and week >= %(since)s;
insert into growth
select {{ by | join(', ') }}, week, growth, place, growth / nullif(volatility, 0) from (
  select {{ by | join(', ') }}, week, change_52_weeks as growth,
    case when change_52_weeks is not null then rank() over (partition by week order by change_52_weeks desc nulls last) end as place
  from reference_metrics where week >= %(since)s
) places join volatility using ({{ by | join(', ') }}, week) where brand = %(brand)s;
