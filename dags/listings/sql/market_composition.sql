delete from market_composition where brand = %(brand)s and week >= %(since)s;
-- Summed as numeric: the same rows in another order must not differ in their last digit.
insert into market_composition
select brand, week, share_of_listings, share_of_value from (
  select brand, week,
    listings / sum(listings) over market::float8 as share_of_listings,
    (listings * median / sum((listings * median)::numeric) over market::float8) as share_of_value
  from brand_metrics where week >= %(since)s window market as (partition by week)
) shares where brand = %(brand)s;
