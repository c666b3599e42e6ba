-- Every week of the chunk has rows, and its lines are all accounted for.
select count(*) = cardinality(%(weeks)s::text[]), bool_and(loaded > 0 and lines = unreadable + without_rate + repeated + outliers + loaded)
from ingested where to_char(week, 'IYYY"-W"IW') = any(%(weeks)s::text[])
