-- One photo sent again and again: PHOTO=cat.jpg wrk -t1 -c50 -d8s --latency -s bench/wrk.lua http://127.0.0.1:8000/predict
local file = io.open(os.getenv("PHOTO"), "rb")
wrk.method, wrk.body = "POST", file:read("*all")
wrk.headers["Content-Type"] = "image/jpeg"
file:close()
