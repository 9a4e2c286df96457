-- Key pairs: what a private key must be, and the statement with which Snowflake learns its public half. The key was made
-- for this test and opens nothing.
\set SHOW_CONTEXT never
create extension snowflake_bridge;
set search_path = snowflake_bridge;
select $$
-----BEGIN PRIVATE KEY-----
MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQDU0fBkz9hsDJ7q
2jZLSTzJqfkmDjIcQv+IRcDqsx2iJhfs+u4HuWhE0rXXCU7svO9hDAj+piZpTAqX
W23BIMK8FtyiEYAryFtyI8tqm+3AFcz+QtMgId2KD+LO/5OkzUCgjLWRrsxRFT9b
rr8n23darXgSjcaAH/X29uA1hZ9JOQy1Uh6oXuVbbHnvLk48kxYOEB3Qs5nPvvNI
qjiCP5PPykareHCFiVTiO2NCzq34nnclcag/9N+bkZDFdh3g+gfhrFxqVwULNVdH
yUTKqjajY2uhwGe5xIq+MSvxoQ9qQILvwV713kCSBJdQlTjKTUuHNpHFB+nCVfsz
IuRv5pklAgMBAAECggEAAr0htkDQ5mSr/HyK0e5pjUE8hv3Y+grur1OrR00lmeGa
aziFE0csJvHJpbCYxtLDoRPlLCNgcsVBjNZM+knjcUVscqiw/18+6Tm55qK54FmN
35oyjcMbaI+kLPyWOAe5x8pa+weTcsB7ctpnDip0rCkRVrb8xMdXt5iDvoyV35ZW
jm8HRoQGMV6sdnX7pdEo4l7GWPBd7gCGevJHROMoRrLWH7UAQPMKzlOTb0ce4Ndt
/dvjzGwyOeSl53rnyLW+eInQp1nS4FJHksBltS8s3Oz4tPFlF/h2f4CMmn01faBr
Z7yW+ucrE66sLj9Dvjf993NWQAfA9a974tQ/6Spi/QKBgQDsVTg0zLIYNr+W9X30
qtaLonNMy3ASREJR30nLhMf543VxwX1LbdilqAmnpmV+ysbEIelBVf+EfRzpzSKx
4bqX2wiQwhiJOSrGWaaPQWVh5K30VcVTO8FAIR756ZFIPSNVFqFzB6GmvL3tZ1YA
FFiGwxPArSiRyzCX2MZRutDvmwKBgQDmh87Y0QVmbe2XDRnixC501H7pwR2/xMb4
oBX+osNvWc/gljqI2UEuDZSTOYiFspNF1hl5NpJjpsfCrI+fl9NTKk8sQHkOr8Fi
yKC32UFLswruXlgSUTl7T5hTOfVv/ZufFFCxvtcqit1woN7xmRRXLX3JFwV4bntr
B0YRs3oGPwKBgHB9F6W6EMMJvCPEcdF1R21rQ2o4Iv3u04pYt61RZEYDCDG/IT43
6LjgxMexofm51uYgJgBdSKPtUUfPxkXY5ZHGRctxN3CJb1y961OgkvsHd+0mriex
94fou+/ERsyVnS2w+ePgrAbLK7PGTd730DNEwzAgu4C5sEV2ft8EBtMlAoGAFdyV
MhyIXZFZMbTtWoLuQOgR7QsCTjhUAin0TASVcg7bVtoITQgFVV+2UkvndX5c1weZ
vNP/B/I+CWkh6amVQdLGVVT75fem6D5Md4Lj3VDqXXaW9Y28XMRMlr/tVaSASJK9
oE2PzBoFK/QlkFXLBwVqY1KKk0Qu8hRrgaw6izMCgYEAwl8ayOQqG9YXvu7/sgKj
ztgAJjAQYd9b+I5DCHo6eYUO/++HPg4yiYM3DyhKw7ae4tmSA7hp6A/QZkwMa9j7
xNJrHWrUS7w/amYJ2u8DDi7FkK/G4/Svco8ewjAzP2h4yfHWrFb7WWzsoyXBgGkZ
onZaextsgSc/7GYC6EpaE4E=
-----END PRIVATE KEY-----
$$ as private_key \gset

select create_config('myorg-myacct', username => 'loader', private_key => :'private_key', verify => false) is not null as created;
select name, auth_method from get_config();
select public_key();

-- A key that cannot be read says why, also where nothing is tested.
select create_config('myorg-myacct', username => 'loader', private_key => 'not a key', name => 'bad', verify => false);
select create_config('myorg-myacct', username => 'loader', private_key => replace(:'private_key', 'A', 'B'), name => 'bad', verify => false);
-- A passphrase is stored with its key, and taken away with it.
select update_config(private_key => :'private_key', private_key_passphrase => 'not needed', verify => false);
select private_key_passphrase_encrypted is not null as passphrase from snowflake_configurations;
select update_config(private_key => :'private_key', verify => false);
select private_key_passphrase_encrypted is not null as passphrase from snowflake_configurations;

-- What a secret may be used for is sealed in with it: a row that was changed by hand cannot be opened.
begin;
update snowflake_configurations set username = 'somebody_else';
select public_key();
rollback;
begin;
update snowflake_configurations set account_identifier = 'evil-acct';
select public_key();
rollback;
begin;
update snowflake_configurations set user_id = 'mallory', owner_kind = 'jwt', owner_oid = 0;
select public_key(user_id => 'mallory');
rollback;
-- Another spelling of the same account opens.
begin;
update snowflake_configurations set account_identifier = 'MYORG-MYACCT';
select public_key() is not null as opened;
rollback;
-- A ciphertext of another row does not.
select create_config('myorg-myacct', username => 'loader', private_key => :'private_key', name => 'second', verify => false) is not null as created;
begin;
update snowflake_configurations s set private_key_encrypted = d.private_key_encrypted
  from snowflake_configurations d where s.name = 'second' and d.name = 'default';
select public_key('second');
rollback;

-- Other methods have no key to show.
select create_config('myorg-myacct', username => 'loader', token => 't', name => 'token', verify => false) is not null as created;
select public_key('token');
select public_key('no such');

drop extension snowflake_bridge;
