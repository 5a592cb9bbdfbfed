-- In this flavour nothing runs by itself: plc_retention() reads plc_settings when it is called.

SET LOCAL ROLE plc_owner;

-- Make a change of plc_settings take effect.
CREATE OR REPLACE FUNCTION public.plc_apply_settings() RETURNS void
LANGUAGE sql
AS $$ $$;

REVOKE ALL ON FUNCTION public.plc_apply_settings() FROM PUBLIC;
