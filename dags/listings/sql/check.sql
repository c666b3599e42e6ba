-- There is a row for whatever was listed in a week, and no other.
select count(*) = count(computed.week) and count(*) = count(listed.week)
from (select {{ by | join(', ') }}, week from {{ table }} where brand = %(brand)s and week >= %(since)s) computed
full join (select distinct {{ by | join(', ') }}, week from listings where brand = %(brand)s and week >= %(since)s) listed
  using ({{ by | join(', ') }}, week)
