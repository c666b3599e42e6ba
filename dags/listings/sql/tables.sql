create table if not exists listings (
  listing text, week date, listed date not null,
  brand text not null, parent_model text not null, model text not null, reference text not null,
  price numeric(12, 2) not null,
  primary key (week, listing)
);
create index if not exists listings_brand on listings (brand, week);
create table if not exists ingested (
  week date primary key,
  lines int not null, unreadable int not null, without_rate int not null, repeated int not null, outliers int not null, loaded int not null
);
{% for table, depth in [('reference_metrics', 4), ('model_metrics', 3), ('parent_model_metrics', 2), ('brand_metrics', 1)] %}
{% set keys = ['brand', 'parent_model', 'model', 'reference'][:depth] %}
create table if not exists {{ table }} (
  {{ keys | join(' text, ') }} text, week date,
  listings int not null, parts int not null, median float8 not null, mean_30_days float8 not null,
  change_1_week float8, change_4_weeks float8, change_13_weeks float8, change_26_weeks float8, change_52_weeks float8,
  primary key ({{ keys | join(', ') }}, week)
);
{% endfor %}
create table if not exists market_composition (
  brand text, week date, share_of_listings float8 not null, share_of_value float8 not null,
  primary key (brand, week)
);
create table if not exists volatility (
  brand text, parent_model text, model text, reference text, week date, changes int not null, volatility float8,
  primary key (brand, parent_model, model, reference, week)
);
create table if not exists growth (
  brand text, parent_model text, model text, reference text, week date, growth float8, place int, growth_for_volatility float8,
  primary key (brand, parent_model, model, reference, week)
);
