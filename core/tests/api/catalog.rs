//! `/v1/catalog/…`.

use expect_test::expect;

use crate::support::check;

#[test]
fn nodes_services_and_checks() {
    check(
        r#"
        GET /v1/catalog/nodes
        GET /v1/catalog/services
        GET /v1/catalog/datacenters
        PUT /v1/catalog/register {"Node":"ext1","Address":"192.168.10.10","NodeMeta":{"rack":"r1"}}
        PUT /v1/catalog/register {"Node":"ext1","SkipNodeUpdate":true,"Service":{"ID":"redis1","Service":"redis","Tags":["Primary"],"Port":8000}}
        PUT /v1/catalog/register {"Node":"ext2","Address":"192.168.10.11","Service":{"Service":"redis"},"Check":{"CheckID":"c1","Name":"c1","ServiceID":"redis"}}
        GET /v1/catalog/nodes?node-meta=rack:r1
        GET /v1/catalog/nodes?node-meta=rack:r2
        GET /v1/catalog/service/redis?tag=primary
        GET /v1/catalog/service/redis?tag=primary&tag=v1
        GET /v1/catalog/services?node-meta=rack:r1
        GET /v1/catalog/node/ext1
        GET /v1/catalog/node-services/ext1
        GET /v1/catalog/node/nope
        GET /v1/catalog/node-services/nope
        GET /v1/health/node/ext2

        # What is not there is no error to deregister.
        PUT /v1/catalog/deregister {"Node":"ext2","CheckID":"c1"}
        PUT /v1/catalog/deregister {"Node":"ext2","ServiceID":"redis"}
        PUT /v1/catalog/deregister {"Node":"ext1"}
        PUT /v1/catalog/deregister {"Node":"nope"}
        PUT /v1/catalog/deregister {"Node":"ext2","ServiceID":"nope"}
        GET /v1/catalog/nodes
        GET /v1/catalog/services
        "#,
        expect![[r#"
            GET /v1/catalog/nodes
                200 @1 []
            GET /v1/catalog/services
                200 @1 {}
            GET /v1/catalog/datacenters
                200 ["dc1"]
            PUT /v1/catalog/register {"Node":"ext1","Address":"192.168.10.10","NodeMeta":{"rack":"r1"}}
                200 @2 true
            PUT /v1/catalog/register {"Node":"ext1","SkipNodeUpdate":true,"Service":{"ID":"redis1","Service":"redis","Tags":["Primary"],"Port":8000}}
                200 @3 true
            PUT /v1/catalog/register {"Node":"ext2","Address":"192.168.10.11","Service":{"Service":"redis"},"Check":{"CheckID":"c1","Name":"c1","ServiceID":"redis"}}
                200 @4 true
            GET /v1/catalog/nodes?node-meta=rack:r1
                200 @4 [{"ID":"","Node":"ext1","Address":"192.168.10.10","Datacenter":"dc1","TaggedAddresses":null,"Meta":{"rack":"r1"},"CreateIndex":2,"ModifyIndex":2}]
            GET /v1/catalog/nodes?node-meta=rack:r2
                200 @4 []
            GET /v1/catalog/service/redis?tag=primary
                200 @4 [{"ID":"","Node":"ext1","Address":"192.168.10.10","Datacenter":"dc1","TaggedAddresses":null,"NodeMeta":{"rack":"r1"},"ServiceKind":"","ServiceID":"redis1","ServiceName":"redis","ServiceTags":["Primary"],"ServiceAddress":"","ServiceWeights":{"Passing":1,"Warning":1},"ServiceMeta":{},"ServicePort":8000,"ServicePorts":null,"ServiceSocketPath":"","ServiceEnableTagOverride":false,"ServiceProxy":{"Mode":"","MeshGateway":{},"Expose":{}},"ServiceConnect":{},"ServiceLocality":null,"CreateIndex":3,"ModifyIndex":3}]
            GET /v1/catalog/service/redis?tag=primary&tag=v1
                200 @4 []
            GET /v1/catalog/services?node-meta=rack:r1
                200 @4 {"redis":["Primary"]}
            GET /v1/catalog/node/ext1
                200 @3 {"Node":{"ID":"","Node":"ext1","Address":"192.168.10.10","Datacenter":"dc1","TaggedAddresses":null,"Meta":{"rack":"r1"},"CreateIndex":2,"ModifyIndex":2},"Services":{"redis1":{"ID":"redis1","Service":"redis","Tags":["Primary"],"Address":"","Meta":null,"Port":8000,"Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"Proxy":{"Mode":"","MeshGateway":{},"Expose":{}},"Connect":{},"PeerName":"","CreateIndex":3,"ModifyIndex":3}}}
            GET /v1/catalog/node-services/ext1
                200 @3 {"Node":{"ID":"","Node":"ext1","Address":"192.168.10.10","Datacenter":"dc1","TaggedAddresses":null,"Meta":{"rack":"r1"},"CreateIndex":2,"ModifyIndex":2},"Services":[{"ID":"redis1","Service":"redis","Tags":["Primary"],"Address":"","Meta":null,"Port":8000,"Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"Proxy":{"Mode":"","MeshGateway":{},"Expose":{}},"Connect":{},"PeerName":"","CreateIndex":3,"ModifyIndex":3}]}
            GET /v1/catalog/node/nope
                200 @1 null
            GET /v1/catalog/node-services/nope
                200 @1 {"Node":null,"Services":null}
            GET /v1/health/node/ext2
                200 @4 [{"Node":"ext2","CheckID":"c1","Name":"c1","Status":"critical","Notes":"","Output":"","ServiceID":"redis","ServiceName":"redis","ServiceTags":[],"Type":"","Interval":"","Timeout":"","ExposedPort":0,"Definition":{},"CreateIndex":4,"ModifyIndex":4}]

            # What is not there is no error to deregister.
            PUT /v1/catalog/deregister {"Node":"ext2","CheckID":"c1"}
                200 @5 true
            PUT /v1/catalog/deregister {"Node":"ext2","ServiceID":"redis"}
                200 @6 true
            PUT /v1/catalog/deregister {"Node":"ext1"}
                200 @7 true
            PUT /v1/catalog/deregister {"Node":"nope"}
                200 @7 true
            PUT /v1/catalog/deregister {"Node":"ext2","ServiceID":"nope"}
                200 @7 true
            GET /v1/catalog/nodes
                200 @7 [{"ID":"","Node":"ext2","Address":"192.168.10.11","Datacenter":"dc1","TaggedAddresses":null,"Meta":null,"CreateIndex":4,"ModifyIndex":4}]
            GET /v1/catalog/services
                200 @7 {}
        "#]],
    );
}

#[test]
fn bad_registrations() {
    check(
        r#"
        PUT /v1/catalog/register {"Address":"1.1.1.1"}
        PUT /v1/catalog/register {"Node":"n"}
        PUT /v1/catalog/register {"Node":"n","Address":"a","Datacenter":"nope"}
        PUT /v1/catalog/register?dc=nope {"Node":"n","Address":"a"}
        PUT /v1/catalog/register {"Node":"n","Address":"a","Check":{"CheckID":"c","ServiceID":"nope"}}
        PUT /v1/catalog/register {zz
        PUT /v1/catalog/deregister {}
        GET /v1/catalog/register
        DELETE /v1/catalog/register
        POST /v1/catalog/nodes
        GET /v1/catalog/nodes
        "#,
        expect![[r#"
            PUT /v1/catalog/register {"Address":"1.1.1.1"}
                500 Must provide node
            PUT /v1/catalog/register {"Node":"n"}
                500 Must provide address if SkipNodeUpdate is not set
            PUT /v1/catalog/register {"Node":"n","Address":"a","Datacenter":"nope"}
                500 No path to datacenter
            PUT /v1/catalog/register?dc=nope {"Node":"n","Address":"a"}
                500 No path to datacenter
            PUT /v1/catalog/register {"Node":"n","Address":"a","Check":{"CheckID":"c","ServiceID":"nope"}}
                404 Unknown service ID "nope". Ensure that the service ID is passed, not the service name.
            PUT /v1/catalog/register {zz
                400 Request decode failed: invalid character 'z' looking for beginning of object key string
            PUT /v1/catalog/deregister {}
                500 Must provide node
            GET /v1/catalog/register
                405 method GET not allowed
            DELETE /v1/catalog/register
                405 method DELETE not allowed
            POST /v1/catalog/nodes
                405 method POST not allowed
            GET /v1/catalog/nodes
                200 @1 []
        "#]],
    );
}

#[test]
fn names_with_slashes_and_spaces() {
    check(
        r#"
        PUT /v1/agent/service/register {"Name":"bad name/with slash","Check":{"TTL":"1m"}}
        GET /v1/agent/service/bad%20name/with%20slash
        GET /v1/agent/service/bad%20name%2Fwith%20slash
        PUT /v1/agent/check/pass/service:bad%20name/with%20slash
        GET /v1/health/checks/bad%20name/with%20slash
        PUT /v1/agent/service/deregister/bad%20name%2fwith%20slash
        "#,
        expect![[r#"
            PUT /v1/agent/service/register {"Name":"bad name/with slash","Check":{"TTL":"1m"}}
                200 @2 {"Index":2,"CheckIDs":["service:bad name/with slash"]}
            GET /v1/agent/service/bad%20name/with%20slash
                200 @2 {"ID":"bad name/with slash","Service":"bad name/with slash","Tags":[],"Meta":{},"Port":0,"Address":"","Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"ContentHash":"330646b2d8f09af0","Datacenter":"dc1"}
            GET /v1/agent/service/bad%20name%2Fwith%20slash
                200 @2 {"ID":"bad name/with slash","Service":"bad name/with slash","Tags":[],"Meta":{},"Port":0,"Address":"","Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"ContentHash":"330646b2d8f09af0","Datacenter":"dc1"}
            PUT /v1/agent/check/pass/service:bad%20name/with%20slash
                200 @3 {"Index":3}
            GET /v1/health/checks/bad%20name/with%20slash
                200 @3 [{"Node":"sider","CheckID":"service:bad name/with slash","Name":"Service 'bad name/with slash' check","Status":"passing","Notes":"","Output":"","ServiceID":"bad name/with slash","ServiceName":"bad name/with slash","ServiceTags":[],"Type":"ttl","Interval":"","Timeout":"","ExposedPort":0,"Definition":{},"CreateIndex":2,"ModifyIndex":3}]
            PUT /v1/agent/service/deregister/bad%20name%2fwith%20slash
                200 @4 {"Index":4}
        "#]],
    );
}
