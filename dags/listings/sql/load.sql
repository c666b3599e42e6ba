-- A price of more than three times the median of its reference in the week, or less than a third, is a mistyped one.
with typical as (
  select brand, parent_model, model, reference, percentile_cont(0.5) within group (order by price) as median, count(*) as listings
  from incoming group by brand, parent_model, model, reference
), kept as (
  insert into listings
  select incoming.* from incoming join typical using (brand, parent_model, model, reference)
  where typical.listings < 3 or price between median / 3 and median * 3
  returning 1
)
insert into ingested (week, lines, unreadable, without_rate, repeated, outliers, loaded)
select %(week)s, %(lines)s, %(unreadable)s, %(without_rate)s, %(repeated)s, (select count(*) from incoming) - count(*), count(*) from kept
on conflict (week) do update set (lines, unreadable, without_rate, repeated, outliers, loaded)
  = (excluded.lines, excluded.unreadable, excluded.without_rate, excluded.repeated, excluded.outliers, excluded.loaded)
